import type { OutputFolder } from '@polygraft/tensor-io'
import type { LocalFolder } from '@polygraft/tensor-io/node'
import { runOne } from '../_run-one.js'
import { createEvaluator } from '../evaluate.js'
import { placesOf, type WriteRequest } from '../run-task.js'
import { maxTile, type TaskEvents, type TaskJob } from '../run-tasks.js'
import { runThreads } from './run-threads.js'
import { createShardFiles } from './shard-files.js'
import { areLocal } from './start-thread.js'

/** Runs a job whose output is on a local file system; undefined where it is not. In threads where the inputs are there as well. */
export function runLocal(job: TaskJob, folder: OutputFolder, events: TaskEvents): Promise<void> | undefined {
  if (folder.path === undefined) return undefined
  const local = folder as LocalFolder
  // Threads open files by path.
  const inThreads = job.plan.threads > 0 && areLocal(job.checkpoint.sources)
  return inThreads ? runThreads(job, local, events) : runBeside(job, local, events)
}

/** In this thread, shard by shard; files are digested while others are written. */
async function runBeside(job: TaskJob, folder: LocalFolder, events: TaskEvents): Promise<void> {
  const evaluator = createEvaluator(job.checkpoint.sources, maxTile(job.plan), job.kernels)
  let wake = () => {}
  const files = await createShardFiles(job, folder, events, () => wake())
  const places = placesOf(job.plan.shards)
  const left = { ...job, plan: { ...job.plan, work: { ...job.plan.work, tasks: files.tasks } } }
  try {
    files.start()
    for (const index of files.tasks.keys()) {
      while (index >= files.openUntil()) {
        const opened = new Promise<void>((resolve) => {
          wake = resolve
        })
        await Promise.race([opened, files.ended])
      }
      const write = ({ file, bytes, position }: WriteRequest) => files.fileOf(file).write(bytes, position)
      files.done(await runOne(left, index, evaluator, places, write, events))
    }
    await files.ended
  } finally {
    await files.stop()
  }
}
