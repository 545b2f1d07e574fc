import type { OutputFolder } from '@polygraft/tensor-io'
import { digestFile } from '#platform'
import { runOne } from './_run-one.js'
import { createEvaluator } from './evaluate.js'
import { placesOf, type WriteRequest } from './run-task.js'
import { maxTile, type TaskEvents, type TaskJob } from './run-tasks.js'

/**
 * Runs a job in this thread, awaiting each read and write, for any byte source and into files that perhaps only the folder can
 * read: each is closed and digested before the next begins.
 */
export async function runHere(job: TaskJob, folder: OutputFolder, events: TaskEvents): Promise<void> {
  const evaluator = createEvaluator(job.checkpoint.sources, maxTile(job.plan), job.kernels)
  const { work, shards } = job.plan
  const places = placesOf(shards)
  for (const { file, size, header, tensors: ranges } of shards) {
    const output = await folder.createFile(file, size)
    await output.write(header, 0)
    const write = ({ bytes, position }: WriteRequest) => output.write(bytes, position)
    for (const [index, { group }] of work.tasks.entries())
      if (ranges.has(work.groups[group]!.names[0]!))
        events.onTask(await runOne(job, index, evaluator, places, write, events))
    await output.close()
    await events.onShard(file, await digestFile(await folder.read(file), undefined, events.signal))
  }
}
