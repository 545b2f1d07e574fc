import { parentPort } from 'node:worker_threads'
import { createMeasurer, type MeasureJob, type MeasureResults, type MeasureTask } from '../measure-tasks.js'
import { blockingFiles } from './blocking-files.js'

/** What a measuring thread is started with. */
export interface MeasureInput {
  readonly role: 'measure'
  readonly job: MeasureJob
}

/** To a measuring thread: task number `index`. */
export interface MeasureOrder {
  readonly index: number
  readonly task: MeasureTask
}

/** From a measuring thread. */
export interface MeasureAnswer {
  readonly kind: 'measured'
  readonly index: number
  readonly result: MeasureResults[MeasureTask['kind']]
}

/** What of a result is handed over instead of copied. */
function buffersOf(result: MeasureAnswer['result']): ArrayBuffer[] {
  if (result instanceof Uint32Array) return [result.buffer as ArrayBuffer]
  if (!Array.isArray(result)) return []
  return result.flatMap((part) => ('rest' in part && part.rest ? [part.rest.buffer as ArrayBuffer] : []))
}

/** Does tasks as they are sent, with blocking reads by handles of this thread's own. */
export function serveMeasures({ job }: MeasureInput, fail: (error: unknown) => void): void {
  const files = blockingFiles('')
  const measurer = createMeasurer(job)

  function measure(task: MeasureTask): MeasureAnswer['result'] {
    const work = measurer.run(task)
    for (;;) {
      const step = work.next()
      if (step.done) return step.value
      files.read(step.value)
    }
  }

  parentPort!.on('message', ({ index, task }: MeasureOrder) => {
    try {
      const result = measure(task)
      const answer: MeasureAnswer = { kind: 'measured', index, result }
      parentPort!.postMessage(answer, buffersOf(result))
    } catch (error) {
      fail(error)
    }
  })
}
