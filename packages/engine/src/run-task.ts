import { byteSize, type StateDict, type Tensor } from '@polygraft/tensor'
import type { ShardLayout } from '@polygraft/tensor-io'
import type { Evaluator, ReadRequest, TensorCounts } from './evaluate.js'
import type { Task, TaskList } from './tasks.js'

/** `bytes` to be written at `position` of output file `file`. The bytes are only good until the generator goes on. */
export interface WriteRequest {
  readonly file: string
  readonly position: number
  readonly bytes: Uint8Array
}

/** Where a tensor goes: its file, and the position there of its first byte. */
export interface Place {
  readonly file: string
  readonly begin: number
}

/** Places of all tensors of a layout. */
export function placesOf(shards: readonly ShardLayout[]): ReadonlyMap<string, Place> {
  const places = shards.flatMap(({ file, tensors }) =>
    [...tensors].map(([name, { begin }]) => [name, { file, begin }] as const),
  )
  return new Map(places)
}

/**
 * One task, tile by tile. Yields the reads and writes that it needs and goes on when each is done, so that blocking and
 * awaiting callers share it.
 * @param counts one for each tensor of the task's group; added to.
 */
export function* runTask(
  evaluator: Evaluator,
  { groups }: TaskList,
  { group, begin, count }: Task,
  tensors: StateDict,
  places: ReadonlyMap<string, Place>,
  counts: readonly TensorCounts[],
): Generator<ReadRequest | WriteRequest, void, void> {
  const { names, tileElements } = groups[group]!
  const members = membersOf(tensors, names)
  for (let at = begin; at < begin + count; at += tileElements) {
    const size = Math.min(tileElements, begin + count - at)
    const tiles = yield* evaluator.tile(members, at, size, counts)
    for (const [i, bytes] of tiles.entries()) {
      const { file, begin: start } = places.get(names[i]!)!
      yield { file, position: start + byteSize(members[i]!.dtype, at), bytes }
    }
  }
}

const known = new WeakMap<readonly string[], readonly Tensor[]>()

// The same array each time, since evaluators keep a group's kernel with it.
function membersOf(tensors: StateDict, names: readonly string[]): readonly Tensor[] {
  const members = known.get(names) ?? names.map((name) => tensors.get(name)!)
  known.set(names, members)
  return members
}
