import type { MeasureJob, MeasureKind, MeasureResults, MeasureTask, TaskRunner } from '../measure-tasks.js'
import type { MeasureAnswer, MeasureInput, MeasureOrder } from './measure-thread.js'
import { errorOf, type WorkerOutput } from './messages.js'
import { areLocal, cloneableSources, startThread } from './start-thread.js'

/** Tasks that a thread holds at a time: the next one waits there when one is done. */
const AHEAD = 2

/** Threads that do tasks over local files, until closed; undefined where `job` has other files, or no thread is wanted. */
export function openMeasureThreads(
  job: MeasureJob,
  threads: number,
  signal?: AbortSignal,
): TaskRunner | undefined {
  if (threads === 0 || !areLocal(job.sources)) return undefined
  const input: MeasureInput = {
    role: 'measure',
    job: { ...job, sources: cloneableSources(job.sources) },
  }
  const workers = Array.from({ length: threads }, () => startThread(input))
  let receive: (worker: number, message: MeasureAnswer | WorkerOutput) => void = () => {}
  let failed: (error: unknown) => void = () => {}
  for (const [i, worker] of workers.entries())
    worker.on('message', (message) => receive(i, message)).on('error', (error) => failed(error))

  return {
    run<Kind extends MeasureKind>(
      tasks: readonly MeasureTask<Kind>[],
      onResult: (task: number, result: MeasureResults[Kind]) => void,
    ): Promise<void> {
      if (tasks.length === 0) return Promise.resolve()
      let next = 0
      let done = 0
      const order = (worker: number) => {
        const message: MeasureOrder = { index: next, task: tasks[next]! }
        if (next++ < tasks.length) workers[worker]!.postMessage(message)
      }
      const abort = () => failed(signal!.reason)
      const ended = new Promise<void>((resolve, reject) => {
        failed = reject
        receive = (worker, message) => {
          if (message.kind === 'failed') return reject(errorOf(message.failure))
          if (message.kind !== 'measured') return
          order(worker)
          try {
            onResult(message.index, message.result as MeasureResults[Kind])
          } catch (error) {
            return reject(error)
          }
          if (++done === tasks.length) resolve()
        }
        signal?.addEventListener('abort', abort, { once: true })
        for (let i = 0; i < AHEAD; i++) for (const worker of workers.keys()) order(worker)
      })
      return ended.finally(() => signal?.removeEventListener('abort', abort))
    },
    async close() {
      await Promise.all(workers.map((worker) => worker.terminate()))
    },
  }
}
