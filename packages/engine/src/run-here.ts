import type { OutputFile } from '@polygraft/tensor-io'
import { readInto } from './_drive.js'
import { createEvaluator, type GraftCounts } from './evaluate.js'
import { placesOf, runTask } from './run-task.js'
import type { TaskEvents, TaskJob } from './run-tasks.js'

/** Runs all tasks one after the other in this thread, awaiting each read and write: for any byte source and any folder. */
export async function runHere(
  job: TaskJob,
  files: ReadonlyMap<string, OutputFile>,
  events: TaskEvents,
): Promise<void> {
  const { work, shards } = job.plan
  const { tensors, sources } = job.checkpoint
  const places = placesOf(shards)
  const evaluator = createEvaluator(sources, maxTile(job), job.kernels)
  for (const [index, task] of work.tasks.entries()) {
    const counts: GraftCounts[] = work.groups[task.group]!.names.map(() => ({ changed: 0, swallowed: 0 }))
    for (const request of runTask(evaluator, work, task, tensors, places, counts)) {
      events.signal?.throwIfAborted()
      if ('out' in request) await readInto(request)
      else await files.get(request.file)!.write(request.bytes, request.position)
    }
    events.onTask({ index, counts })
  }
}

/** The largest tile of a job, in elements. */
export function maxTile({ plan }: Pick<TaskJob, 'plan'>): number {
  return plan.work.groups.reduce((most, { tileElements }) => Math.max(most, tileElements), 1)
}
