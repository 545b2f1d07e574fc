import type { Worker } from 'node:worker_threads'
import { ModelError } from '@polygraft/tensor'
import type { OutputFile } from '@polygraft/tensor-io'
import type { LocalFolder } from '@polygraft/tensor-io/node'
import { followCompletion } from '../_completion.js'
import type { TaskEvents, TaskJob } from '../run-tasks.js'
import { errorOf, STOP, type WorkerInput, type WorkerOutput } from './messages.js'
import { cloneableSources, startThread } from './start-thread.js'

/**
 * Runs a job in `job.plan.threads` threads that read and write files by themselves, and one more that digests each file
 * behind them. `folder` is on a local file system, and so are the inputs.
 */
export async function runThreads(job: TaskJob, folder: LocalFolder, events: TaskEvents): Promise<void> {
  const files = new Map<string, OutputFile>()
  for (const { file, size, header } of job.plan.shards) {
    const output = await folder.createFile(file, size)
    files.set(file, output)
    await output.write(header, 0)
  }
  // After a failure they stay open: what is to be discarded need not be flushed to the disk first.
  await withThreads(job, folder.path, {
    ...events,
    onShard: async (file, sha256) => {
      await files.get(file)!.close()
      await events.onShard(file, sha256)
    },
  })
}

async function withThreads(job: TaskJob, folder: string, events: TaskEvents): Promise<void> {
  const { plan, kernels } = job
  const { tensors, sources } = job.checkpoint
  const control = new SharedArrayBuffer(8)
  const words = new Int32Array(control)
  const checkpoint = { tensors, sources: cloneableSources(sources) }
  const whole: WorkerInput['job'] = { checkpoint, plan, kernels, folder }
  // Of tens of thousands of tensors, it needs to know nothing.
  const filesOnly = {
    ...whole,
    checkpoint: { tensors: new Map(), sources: new Map() },
    plan: { ...plan, work: { groups: [], tasks: [] } },
  }
  const threads: Worker[] = []
  const start = (role: WorkerInput['role']) => {
    const input: WorkerInput = { role, control, job: role === 'hash' ? filesOnly : whole }
    const thread = startThread(input)
    threads.push(thread)
    return thread
  }
  const ended: Promise<void>[] = []
  let abort = () => {}
  try {
    events.signal?.throwIfAborted()
    const hasher = start('hash')
    for (let i = 0; i < plan.threads; i++) start('compute')
    await new Promise<void>((resolve, reject) => {
      abort = () => reject(events.signal!.reason)
      events.signal?.addEventListener('abort', abort)
      const tell = (shard: number, until: number) => hasher.postMessage({ shard, until })
      for (const [i, { header }] of plan.shards.entries()) tell(i, header.length)
      const completion = followCompletion(plan.shards, plan.work, tensors)
      const receive = (message: WorkerOutput) => {
        if (message.kind === 'failed') reject(errorOf(message.failure))
        if (message.kind === 'digest') {
          const shard = events.onShard(plan.shards[message.shard]!.file, message.sha256)
          shard.catch(reject)
          ended.push(shard)
          if (ended.length === plan.shards.length) Promise.all(ended).then(() => resolve(), reject)
        }
        if (message.kind === 'task') {
          for (const { shard, until } of completion.done(message.index)) tell(shard, until)
          events.onTask(message)
        }
      }
      for (const thread of threads) listen(thread, receive, reject)
    })
  } finally {
    Atomics.store(words, STOP, 1)
    events.signal?.removeEventListener('abort', abort)
    await Promise.all(threads.map((thread) => thread.terminate()))
    // Nothing goes on behind the caller's back.
    await Promise.allSettled(ended)
  }
}

/** `receive` gets the messages of `thread`; `fail` what it threw, what `receive` threw, or that it ended without a word. */
function listen(
  thread: Worker,
  receive: (message: WorkerOutput) => void,
  fail: (error: unknown) => void,
): void {
  let hasSaidAll = false
  thread.on('message', (message: WorkerOutput) => {
    if (message.kind === 'idle') hasSaidAll = true
    try {
      receive(message)
    } catch (error) {
      fail(error)
    }
  })
  thread.on('error', (error) => fail(threadDied(error.message, error)))
  thread.on('exit', (code) => {
    if (!hasSaidAll) fail(threadDied(`exit code ${code}`))
  })
}

function threadDied(received: string, cause?: unknown): ModelError {
  const next = 'Free memory or take fewer threads (--threads), and start again.'
  return new ModelError(
    { code: 'thread', message: 'A thread ended before its work did', received, next },
    { cause },
  )
}
