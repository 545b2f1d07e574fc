import { byteSize, type StateDict } from '@polygraft/tensor'
import type { ShardLayout } from '@polygraft/tensor-io'
import { placesOf } from './run-task.js'
import type { TaskList } from './tasks.js'

/** How far one file is complete from its first byte on. Unit: bytes. */
interface Prefix {
  readonly shard: number
  readonly until: number
}

/** Follows tasks that end in any order, and tells up to where each file has no gap. */
export interface Completion {
  /** Bytes of tensors that task `index` writes. */
  bytesOf(index: number): number
  /** Where the last byte of task `index` lies: in the file that its shard is, one past it. */
  endOf(index: number): Prefix
  /** Marks a task as done; the files whose complete prefix grew by it. */
  done(index: number): readonly Prefix[]
}

/** @param from where each file is complete up to before any task is done; default its header. */
export function followCompletion(
  shards: readonly ShardLayout[],
  { tasks, groups }: TaskList,
  tensors: StateDict,
  from: readonly number[] = shards.map(({ header }) => header.length),
): Completion {
  const places = placesOf(shards)
  const shardOf = new Map(shards.map(({ file }, i) => [file, i]))
  /** Byte at which a finished stretch begins → byte at which it ends; a file each. */
  const ends = shards.map(() => new Map<number, number>())
  const reached = [...from]

  function* stretches(index: number) {
    const { group, begin, count } = tasks[index]!
    for (const name of groups[group]!.names) {
      const { dtype } = tensors.get(name)!
      const { file, begin: start } = places.get(name)!
      yield {
        shard: shardOf.get(file)!,
        begin: start + byteSize(dtype, begin),
        end: start + byteSize(dtype, begin + count),
      }
    }
  }

  return {
    bytesOf: (index) => [...stretches(index)].reduce((sum, { begin, end }) => sum + end - begin, 0),
    endOf(index) {
      const all = [...stretches(index)]
      return { shard: all[0]!.shard, until: Math.max(...all.map(({ end }) => end)) }
    },
    done(index) {
      const touched = new Set<number>()
      for (const { shard, begin, end } of stretches(index)) {
        // Of a task that is done again, a part may be complete already.
        if (end > reached[shard]!) ends[shard]!.set(Math.max(begin, reached[shard]!), end)
        touched.add(shard)
      }
      const grown: Prefix[] = []
      for (const shard of touched) {
        const before = reached[shard]!
        for (let end = ends[shard]!.get(before); end !== undefined; end = ends[shard]!.get(reached[shard]!)) {
          ends[shard]!.delete(reached[shard]!)
          reached[shard] = end
        }
        if (reached[shard]! > before) grown.push({ shard, until: reached[shard]! })
      }
      return grown
    },
  }
}
