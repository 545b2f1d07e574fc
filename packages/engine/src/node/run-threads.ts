import type { Worker } from 'node:worker_threads'
import { ModelError } from '@polygraft/tensor'
import type { LocalFolder } from '@polygraft/tensor-io/node'
import type { TaskEvents, TaskJob } from '../run-tasks.js'
import { CONTROL_BYTES, errorOf, OPEN, STOP, type WorkerInput, type WorkerOutput } from './messages.js'
import { createShardFiles, type ShardFiles } from './shard-files.js'
import { cloneableSources, startThread } from './start-thread.js'

/**
 * Runs a job in `job.plan.threads` threads that read and write files by themselves, while this one opens, digests and closes
 * what they write. `folder` is on a local file system, and so are the inputs.
 */
export async function runThreads(job: TaskJob, folder: LocalFolder, events: TaskEvents): Promise<void> {
  const control = new SharedArrayBuffer(CONTROL_BYTES)
  const words = new Int32Array(control)
  const set = (slot: number, value: number) => {
    Atomics.store(words, slot, value)
    Atomics.notify(words, OPEN)
  }
  const files = await createShardFiles(job, folder, events, () => set(OPEN, files.openUntil()))
  const threads: Worker[] = []
  let abort = () => {}
  try {
    events.signal?.throwIfAborted()
    const input = inputOf(job, files, folder.path, control)
    for (let i = 0; i < job.plan.threads; i++) threads.push(startThread(input))
    await new Promise<void>((resolve, reject) => {
      abort = () => reject(events.signal!.reason)
      events.signal?.addEventListener('abort', abort)
      const receive = (message: WorkerOutput) => {
        if (message.kind === 'failed') reject(errorOf(message.failure))
        if (message.kind === 'task') files.done(message)
      }
      for (const thread of threads) listen(thread, receive, reject)
      files.ended.then(resolve, reject)
      files.start()
    })
  } finally {
    set(STOP, 1)
    events.signal?.removeEventListener('abort', abort)
    // Nothing goes on behind the caller's back.
    await Promise.all([files.stop(), ...threads.map((thread) => thread.terminate())])
  }
}

function inputOf(
  { checkpoint: { tensors, sources }, plan, kernels }: TaskJob,
  { tasks }: ShardFiles,
  folder: string,
  control: SharedArrayBuffer,
): WorkerInput {
  const checkpoint = { tensors, sources: cloneableSources(sources) }
  const left = { ...plan, work: { ...plan.work, tasks } }
  return { role: 'compute', control, job: { checkpoint, plan: left, kernels, folder } }
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
