import { parentPort, workerData } from 'node:worker_threads'
import { createCounts } from '@polygraft/kernels'
import { createEvaluator } from '../evaluate.js'
import { placesOf, runTask } from '../run-task.js'
import { maxTile } from '../run-tasks.js'
import { blockingFiles } from './blocking-files.js'
import { type MeasureInput, serveMeasures } from './measure-thread.js'
import {
  CONTROL_BYTES,
  type Failure,
  failureOf,
  NEXT,
  OPEN,
  STOP,
  type WorkerInput,
  type WorkerOutput,
} from './messages.js'
import { serveTeam, type TeamInput } from './team-thread.js'
import { type TeamWatchInput, watchTeam } from './team-watch.js'

const input = workerData as WorkerInput
const role = (workerData as WorkerInput | MeasureInput | TeamInput | TeamWatchInput).role
/** Shared with the threads that write; measuring needs none. */
const control = new Int32Array(input.control ?? CONTROL_BYTES)
const send = (message: WorkerOutput) => parentPort!.postMessage(message)

try {
  if (role === 'measure') serveMeasures(workerData as MeasureInput, fail)
  else if (role === 'team') serveTeam(workerData as TeamInput, fail)
  else if (role === 'team-watch') void watchTeam(workerData as TeamWatchInput, fail)
  else compute()
} catch (error) {
  fail(error)
}

function fail(error: unknown): void {
  const failure: Failure = failureOf(error)
  send({ kind: 'failed', failure })
}

/** Takes the next task off the shared counter until there is none. */
function compute(): void {
  const { checkpoint, plan, kernels, folder } = input.job
  const { work, shards } = plan
  const files = blockingFiles(folder)
  const places = placesOf(shards)
  const evaluator = createEvaluator(checkpoint.sources, maxTile(plan), kernels)
  for (;;) {
    const index = Atomics.add(control, NEXT, 1)
    const task = work.tasks[index]
    if (!task) break
    waitUntilOpen(index)
    const counts = work.groups[task.group]!.names.map(createCounts)
    for (const request of runTask(evaluator, work, task, checkpoint.tensors, places, counts)) {
      if (Atomics.load(control, STOP) !== 0) {
        files.close()
        return
      }
      if ('out' in request) files.read(request)
      else files.write(request)
    }
    send({ kind: 'task', index, counts })
  }
  files.close()
  send({ kind: 'idle' })
}

/** Blocks until the file of task `index` is open, or the work is to stop. */
function waitUntilOpen(index: number): void {
  for (;;) {
    const open = Atomics.load(control, OPEN)
    if (index < open || Atomics.load(control, STOP) !== 0) return
    Atomics.wait(control, OPEN, open)
  }
}
