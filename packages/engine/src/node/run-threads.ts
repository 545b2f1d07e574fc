import type { OutputFile } from '@polygraft/tensor-io'
import type { LocalFolder } from '@polygraft/tensor-io/node'
import { followCompletion } from '../_completion.js'
import type { TaskEvents, TaskJob } from '../run-tasks.js'
import { errorOf, NEXT, STOP, type WorkerInput, type WorkerOutput } from './messages.js'
import { cloneableSources, startThread } from './start-thread.js'

/**
 * Runs a job in `job.plan.threads` threads that read and write files by themselves, and one more that digests each file
 * behind them. `folder` is on a local file system, and so are the inputs.
 */
export async function runThreads(job: TaskJob, folder: LocalFolder, events: TaskEvents): Promise<void> {
  const files = new Map<string, OutputFile>()
  try {
    for (const { file, size, header } of job.plan.shards) {
      const output = await folder.createFile(file, size)
      files.set(file, output)
      await output.write(header, 0)
    }
    await withThreads(job, folder.path, {
      ...events,
      onShard: async (file, sha256) => {
        await files.get(file)!.close()
        await events.onShard(file, sha256)
      },
    })
  } finally {
    await Promise.all([...files.values()].map((file) => file.close()))
  }
}

async function withThreads(job: TaskJob, folder: string, events: TaskEvents): Promise<void> {
  const { plan, kernels } = job
  const { tensors, sources } = job.checkpoint
  const control = new SharedArrayBuffer(8)
  const words = new Int32Array(control)
  const checkpoint = { tensors, sources: cloneableSources(sources) }
  const input: Omit<WorkerInput, 'role'> = { control, job: { checkpoint, plan, kernels, folder } }
  const completion = followCompletion(plan.shards, plan.work, tensors)
  const hasher = startThread({ ...input, role: 'hash' })
  const computers = Array.from({ length: plan.threads }, () => startThread({ ...input, role: 'compute' }))
  const threads = [hasher, ...computers]

  const tell = (shard: number, until: number) => hasher.postMessage({ shard, until })
  for (const [i, { header }] of plan.shards.entries()) tell(i, header.length)
  const stop = () => Atomics.store(words, STOP, 1)
  events.signal?.addEventListener('abort', stop, { once: true })
  try {
    events.signal?.throwIfAborted()
    const ended: Promise<void>[] = []
    await new Promise<unknown>((resolve, reject) => {
      events.signal?.addEventListener('abort', () => reject(events.signal!.reason), { once: true })
      const receive = (message: WorkerOutput) => {
        if (message.kind === 'failed') return reject(errorOf(message.failure))
        if (message.kind === 'digest') {
          ended.push(events.onShard(plan.shards[message.shard]!.file, message.sha256))
          if (ended.length === plan.shards.length) resolve(Promise.all(ended))
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
}
