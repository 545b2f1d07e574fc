import { createCounts } from '@polygraft/kernels'
import { readInto } from './_drive.js'
import type { Evaluator } from './evaluate.js'
import { type placesOf, runTask, type WriteRequest } from './run-task.js'
import type { TaskDone, TaskEvents, TaskJob } from './run-tasks.js'

/** One task, awaiting each read and write. @param index Of the task in `job.plan.work.tasks`. */
export async function runOne(
  { checkpoint: { tensors }, plan: { work } }: TaskJob,
  index: number,
  evaluator: Evaluator,
  places: ReturnType<typeof placesOf>,
  write: (request: WriteRequest) => Promise<void>,
  { signal }: TaskEvents,
): Promise<TaskDone> {
  const task = work.tasks[index]!
  const counts = work.groups[task.group]!.names.map(createCounts)
  for (const request of runTask(evaluator, work, task, tensors, places, counts)) {
    signal?.throwIfAborted()
    if ('out' in request) await readInto(request)
    else await write(request)
  }
  return { index, counts }
}
