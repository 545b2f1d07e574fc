import { createCounts } from '@polygraft/kernels'
import type { OutputFolder } from '@polygraft/tensor-io'
import type { LocalFolder } from '@polygraft/tensor-io/node'
import { readInto } from './_drive.js'
import { createEvaluator, type Evaluator } from './evaluate.js'
import { digestFile } from './node/digest.js'
import { createShardFiles } from './node/shard-files.js'
import { placesOf, runTask, type WriteRequest } from './run-task.js'
import { maxTile, type TaskDone, type TaskEvents, type TaskJob } from './run-tasks.js'

/** Runs a job in this thread, shard by shard, awaiting each read and write: for any byte source and any folder. */
export async function runHere(job: TaskJob, folder: OutputFolder, events: TaskEvents): Promise<void> {
  const evaluator = createEvaluator(job.checkpoint.sources, maxTile(job.plan), job.kernels)
  if (folder.path === undefined) await runElsewhere(job, evaluator, folder, events)
  else await runLocally(job, evaluator, folder as LocalFolder, events)
}

/** Into files of this machine, which are digested while others are written. */
async function runLocally(
  job: TaskJob,
  evaluator: Evaluator,
  folder: LocalFolder,
  events: TaskEvents,
): Promise<void> {
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

/** Into files that only the folder can read: each is closed and digested before the next begins. */
async function runElsewhere(
  job: TaskJob,
  evaluator: Evaluator,
  folder: OutputFolder,
  events: TaskEvents,
): Promise<void> {
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

async function runOne(
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
