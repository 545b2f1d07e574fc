import { Worker } from 'node:worker_threads'
import type { Source } from '@polygraft/tensor'
import { followCompletion } from '../_completion.js'
import type { TaskEvents, TaskJob } from '../run-tasks.js'
import { errorOf, NEXT, STOP, type WorkerInput, type WorkerOutput } from './messages.js'

/**
 * Runs all tasks in `job.plan.threads` threads that read and write files by themselves, and one more that digests each
 * file behind them. The files exist in `folder`, in their final size and with their headers.
 * @returns SHA-256 by file, lower-case hexadecimal.
 */
export async function runThreads(
  job: TaskJob,
  folder: string,
  events: TaskEvents,
): Promise<ReadonlyMap<string, string>> {
  const { plan, checkpoint, kernels } = job
  const control = new SharedArrayBuffer(8)
  const words = new Int32Array(control)
  const input = { control, job: { checkpoint: cloneable(checkpoint), plan, kernels, folder } }
  const completion = followCompletion(plan.shards, plan.work, checkpoint.tensors)
  const digests = new Map<string, string>()
  const hasher = startThread({ ...input, role: 'hash' })
  const computers = Array.from({ length: plan.threads }, () => startThread({ ...input, role: 'compute' }))
  const threads = [hasher, ...computers]

  const tell = (shard: number, until: number) => hasher.postMessage({ shard, until })
  for (const [i, { header }] of plan.shards.entries()) tell(i, header.length)
  const stop = () => Atomics.store(words, STOP, 1)
  events.signal?.addEventListener('abort', stop, { once: true })
  try {
    events.signal?.throwIfAborted()
    await new Promise<void>((resolve, reject) => {
      events.signal?.addEventListener('abort', () => reject(events.signal!.reason), { once: true })
      const receive = (message: WorkerOutput) => {
        if (message.kind === 'failed') return reject(errorOf(message.failure))
        if (message.kind === 'digest') {
          digests.set(plan.shards[message.shard]!.file, message.sha256)
          if (digests.size === plan.shards.length) resolve()
        }
        if (message.kind === 'task') {
          for (const { shard, until } of completion.done(message.index)) tell(shard, until)
          events.onTask(message)
        }
      }
      for (const thread of threads) thread.on('message', receive).on('error', reject)
    })
  } finally {
    stop()
    Atomics.store(words, NEXT, plan.work.tasks.length)
    events.signal?.removeEventListener('abort', stop)
    await Promise.all(threads.map((thread) => thread.terminate()))
  }
  return digests
}

function startThread(input: WorkerInput): Worker {
  if (!import.meta.url.endsWith('.ts'))
    return new Worker(new URL('./worker.js', import.meta.url), { workerData: input })
  // In a working copy the thread is TypeScript, which Node 20 runs only after tsx has registered itself there.
  const entry = JSON.stringify(new URL('./worker.ts', import.meta.url).href)
  const start = `import('tsx/esm/api').then(({ register }) => (register(), import(${entry})))`
  return new Worker(start, { workerData: input, eval: true })
}

/** Sources as data that threads can be given: byte sources by their paths alone. */
function cloneable({ tensors, sources }: TaskJob['checkpoint']): WorkerInput['job']['checkpoint'] {
  const plain = [...sources].map(([id, source]): [string, Source] => {
    const shards = [...source.shards].map(([name, { path, size }]) => [name, { path, size }] as const)
    // Only `path` is used there; the rest of a ByteSource is functions, which cannot be cloned.
    return [id, { ...source, shards: new Map(shards) as unknown as Source['shards'] }]
  })
  return { tensors, sources: new Map(plain) }
}
