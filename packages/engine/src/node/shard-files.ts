import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import type { OutputFile, ShardLayout } from '@polygraft/tensor-io'
import type { LocalFolder } from '@polygraft/tensor-io/node'
import { type Completion, followCompletion } from '../_completion.js'
import type { TaskDone, TaskEvents, TaskJob } from '../run-tasks.js'
import type { Task } from '../tasks.js'
import { type BlockingFiles, blockingFiles } from './blocking-files.js'
import { digestChunk, isFlushDue, type OpenShard, openShard } from './open-shard.js'
import { type KeptShard, readKept } from './shard-journal.js'

/** Shards that are open at a time: more than one, so that nobody waits while one is flushed. */
const MAX_OPEN = 3
/**
 * The output files of a job, of which a few are open at a time. Each is digested close behind those who write it, while its bytes
 * are in the page cache, and noted when it is whole. What an earlier run left of one is kept, as far as its journal is confirmed.
 */
export interface ShardFiles {
  /** What is left to do, in the order in which it is to be begun. */
  readonly tasks: readonly Task[]
  /** Opens the first files. */
  start(): void
  /** Tasks from this index on wait until their file is open. */
  openUntil(): number
  fileOf(name: string): OutputFile
  /** @param done `index` is one of `tasks`. */
  done(done: TaskDone): void
  /** Settles when all shards are noted, or with the first failure. */
  readonly ended: Promise<void>
  /** Resolves when nothing is under way any more. */
  stop(): Promise<void>
}

/**
 * Looks what is left to do. Nothing is opened before `start`.
 * @param onOpen told when `openUntil` has grown.
 */
export async function createShardFiles(
  job: TaskJob,
  folder: LocalFolder,
  events: TaskEvents,
  onOpen: () => void,
): Promise<ShardFiles> {
  const { plan } = job
  const { shards, work } = plan
  const reading = blockingFiles(folder.path)
  const journal = folder.notes?.journal
  const kept = await findKept(shards, folder, reading, events)
  const { left, completion } = leftOf(job, kept, events)
  const shardOf = left.map((_, index) => completion.endOf(index).shard)

  const open = new Map<number, OpenShard>()
  const underWay = new Set<Promise<void>>()
  const isReachable: boolean[] = []
  let opened = 0
  let finished = 0
  let isStopped = false
  let isDigesting = false
  let isEnded: () => void
  let fail: (error: unknown) => void
  const ended = new Promise<void>((resolve, reject) => {
    isEnded = resolve
    fail = reject
  })
  // Whoever stops before the end asks no more.
  ended.catch(() => {})

  /** Runs a step beside all others; its failure is that of the job. */
  function begin(step: () => Promise<void>): Promise<void> {
    const promise = step().catch((error: unknown) => fail(error))
    underWay.add(promise)
    return promise.finally(() => underWay.delete(promise))
  }

  async function openNext(): Promise<void> {
    const index = opened++
    const layout = shards[index]
    if (!layout || isStopped) return
    open.set(index, await openShard(layout, folder, kept.get(index)))
    isReachable[index] = true
    onOpen()
    digestAll()
  }

  function digestAll(): void {
    if (isDigesting) return
    isDigesting = true
    begin(async () => {
      for (;;) {
        const next = [...open].find(([, { at, until, layout }]) => at < until || at === layout.size)
        if (!next || isStopped) break
        events.signal?.throwIfAborted()
        const [index, shard] = next
        if (shard.at < shard.until) digestChunk(shard, reading, journal)
        if (isFlushDue(shard)) flush(shard)
        if (shard.at === shard.layout.size) {
          open.delete(index)
          begin(() => finish(shard))
        }
        await setImmediate()
      }
      isDigesting = false
    })
  }

  function flush(shard: OpenShard): void {
    shard.flushed = shard.at
    shard.flushing = begin(() => shard.file.flush()).then(() => {
      shard.flushing = undefined
    })
  }

  async function finish({ layout, file, digest, flushing }: OpenShard): Promise<void> {
    await flushing
    // What is to be discarded need not be flushed.
    if (isStopped) return
    await file.close()
    reading.closeFile(layout.file)
    await events.onShard(layout.file, digest.hex())
    if (++finished === shards.length) isEnded()
    else await openNext()
  }

  return {
    tasks: left.map((index) => work.tasks[index]!),
    ended,
    start() {
      for (let i = 0; i < Math.min(MAX_OPEN, shards.length); i++) begin(openNext)
    },
    openUntil() {
      const waiting = shardOf.findIndex((shard) => !isReachable[shard])
      return waiting < 0 ? shardOf.length : waiting
    },
    fileOf: (name) => [...open.values()].find(({ layout }) => layout.file === name)!.file,
    done({ index, counts }) {
      const { shard, until: end } = completion.endOf(index)
      const { names } = work.groups[work.tasks[left[index]!]!.group]!
      if (journal) open.get(shard)!.untold.push({ end, names, counts })
      for (const { shard: grown, until } of completion.done(index)) open.get(grown)!.until = until
      events.onTask({ index: left[index]!, counts })
      digestAll()
    },
    async stop() {
      isStopped = true
      while (underWay.size > 0) await Promise.allSettled(underWay)
      reading.close()
    },
  }
}

/** What can be kept of shards that an earlier run began, by index. */
async function findKept(
  shards: readonly ShardLayout[],
  folder: LocalFolder,
  reading: BlockingFiles,
  { signal }: TaskEvents,
): Promise<ReadonlyMap<number, KeptShard>> {
  const kept = new Map<number, KeptShard>()
  for (const [index, layout] of shards.entries()) {
    const lines = folder.notes?.journal?.earlier.get(layout.file)
    const found = lines && (await readKept(reading, join(folder.path, layout.file), layout, lines, signal))
    if (found) kept.set(index, found)
  }
  return kept
}

/** Indices of the tasks that are left, and how they complete the files. */
function leftOf(
  { checkpoint: { tensors }, plan: { shards, work } }: TaskJob,
  kept: ReadonlyMap<number, KeptShard>,
  events: TaskEvents,
): { readonly left: readonly number[]; readonly completion: Completion } {
  const all = followCompletion(shards, work, tensors)
  const left: number[] = []
  let bytesKept = 0
  for (const index of work.tasks.keys()) {
    const { shard, until } = all.endOf(index)
    if (until > (kept.get(shard)?.until ?? 0)) left.push(index)
    else bytesKept += all.bytesOf(index)
  }
  if (kept.size > 0)
    events.onKept(
      [...kept.values()].map(({ counts }) => counts),
      bytesKept,
    )
  const rest = { ...work, tasks: left.map((index) => work.tasks[index]!) }
  const reached = shards.map(({ header }, index) => kept.get(index)?.until ?? header.length)
  return { left, completion: followCompletion(shards, rest, tensors, reached) }
}
