import { parentPort, workerData } from 'node:worker_threads'
import { createEvaluator, type GraftCounts } from '../evaluate.js'
import { placesOf, runTask } from '../run-task.js'
import { maxTile } from '../run-tasks.js'
import { blockingFiles } from './blocking-files.js'
import { createDigest } from './digest.js'
import { type MeasureInput, serveMeasures } from './measure-thread.js'
import { type Failure, failureOf, NEXT, STOP, type WorkerInput, type WorkerOutput } from './messages.js'

const input = workerData as WorkerInput
const role = (workerData as WorkerInput | MeasureInput).role
/** Shared with the threads that write; measuring needs none. */
const control = new Int32Array(input.control ?? 8)
const send = (message: WorkerOutput) => parentPort!.postMessage(message)

try {
  if (role === 'measure') serveMeasures(workerData as MeasureInput, fail)
  else if (role === 'compute') compute()
  else hash()
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
    const counts: GraftCounts[] = work.groups[task.group]!.names.map(() => ({ changed: 0, swallowed: 0 }))
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

/** Follows the writers: digests each file up to where it is complete, as it is told. */
function hash(): void {
  const files = blockingFiles(input.job.folder)
  const digests = input.job.plan.shards.map(({ file, size }) => ({
    file,
    size,
    at: 0,
    digest: createDigest(),
  }))
  const chunk = new Uint8Array(2 ** 20)
  let open = digests.length
  parentPort!.on('message', ({ shard, until }: { shard: number; until: number }) => {
    try {
      const state = digests[shard]!
      while (state.at < until && Atomics.load(control, STOP) === 0) {
        const bytes = chunk.subarray(0, Math.min(chunk.length, until - state.at))
        files.readBack(state.file, state.at, bytes)
        state.digest.update(bytes)
        state.at += bytes.length
      }
      if (state.at < state.size) return
      send({ kind: 'digest', shard, sha256: state.digest.hex() })
      if (--open > 0) return
      send({ kind: 'idle' })
      files.close()
      parentPort!.close()
    } catch (error) {
      fail(error)
    }
  })
}
