import type { OutputFolder } from '@polygraft/tensor-io'
import { readInto } from './_drive.js'
import { createEvaluator, type GraftCounts } from './evaluate.js'
import { digestFile } from './node/digest.js'
import { placesOf, runTask } from './run-task.js'
import { maxTile, type TaskEvents, type TaskJob } from './run-tasks.js'

/**
 * Runs a job in this thread, shard by shard, awaiting each read and write: for any byte source and any folder. Each file
 * is closed and digested before the next begins.
 */
export async function runHere(job: TaskJob, folder: OutputFolder, events: TaskEvents): Promise<void> {
  const { work, shards } = job.plan
  const { tensors, sources } = job.checkpoint
  const places = placesOf(shards)
  const evaluator = createEvaluator(sources, maxTile(job.plan), job.kernels)
  for (const { file, size, header, tensors: ranges } of shards) {
    const output = await folder.createFile(file, size)
    await output.write(header, 0)
    for (const [index, task] of work.tasks.entries()) {
      const { names } = work.groups[task.group]!
      if (!ranges.has(names[0]!)) continue
      const counts: GraftCounts[] = names.map(() => ({ changed: 0, swallowed: 0 }))
      for (const request of runTask(evaluator, work, task, tensors, places, counts)) {
        events.signal?.throwIfAborted()
        if ('out' in request) await readInto(request)
        else await output.write(request.bytes, request.position)
      }
      events.onTask({ index, counts })
    }
    // Not after a failure: what is to be discarded need not be flushed to the disk first.
    await output.close()
    await events.onShard(file, await digestFile(await folder.read(file), undefined, events.signal))
  }
}
