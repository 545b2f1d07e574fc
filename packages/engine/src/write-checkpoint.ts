import { byteSize, type Checkpoint, numel } from '@polygraft/tensor'
import { formatIndex, type OutputFile, type OutputFolder } from '@polygraft/tensor-io'
import { followCompletion } from './_completion.js'
import type { Kernels } from './_kernel-pool.js'
import type { GraftCounts } from './evaluate.js'
import { createManifest, formatManifest, MANIFEST_FILE, type Manifest } from './manifest.js'
import { digestFile } from './node/digest.js'
import { runThreads } from './node/run-threads.js'
import { type Plan, type PlanOptions, planCheckpoint } from './plan.js'
import { runHere } from './run-here.js'
import type { TaskEvents, TaskJob } from './run-tasks.js'

const INDEX_FILE = 'model.safetensors.index.json'

/** How far a write has come. */
export interface Progress {
  /** A tensor that was just written to. */
  readonly tensor: string
  /** Bytes of tensors written so far, and of all tensors. */
  readonly bytesDone: number
  readonly bytesTotal: number
}

export interface WriteOptions extends PlanOptions {
  /** Recorded in the manifest. */
  readonly version: string
  /** 'simd' (default) or the plain TypeScript reference; the bytes are the same. */
  readonly kernels?: Kernels
  readonly onProgress?: (progress: Progress) => void
  /** Checked between tiles; aborting throws the signal's reason. The caller then discards the folder. */
  readonly signal?: AbortSignal
}

/**
 * Evaluates `checkpoint` tile by tile into `folder`: shards, index, `config.json`, carried files, `polygraft.json`.
 * Threads are used where `options.threads` asks for them and inputs and output are local files; the bytes do not depend
 * on it. The caller publishes or discards the folder.
 * @throws ModelError when a tensor cannot be evaluated, a file is truncated or the disk is full.
 */
export async function writeCheckpoint(
  checkpoint: Checkpoint,
  folder: OutputFolder,
  options: WriteOptions,
): Promise<Manifest> {
  const threads = isLocal(checkpoint, folder) ? (options.threads ?? 0) : 0
  const plan = planCheckpoint(checkpoint, { ...options, threads })
  const { counts, digests } = await writeShards(
    { checkpoint, plan, kernels: options.kernels ?? 'simd' },
    folder,
    options,
  )
  if (plan.shards.length > 1) await folder.writeFile(INDEX_FILE, formatIndex(plan.shards))
  if (Object.keys(checkpoint.config).length > 0)
    await folder.writeFile('config.json', `${JSON.stringify(checkpoint.config, undefined, 2)}\n`)
  for (const [name, bytes] of checkpoint.files) await folder.writeFile(name, bytes)
  const shards = plan.shards.map(({ file, size }) => ({ file, bytes: size, sha256: digests.get(file)! }))
  const manifest = createManifest(checkpoint, plan, shards, counts, options.version)
  await folder.writeFile(MANIFEST_FILE, formatManifest(manifest))
  return manifest
}

/** Threads open files by path. */
function isLocal({ sources }: Checkpoint, { path }: OutputFolder): boolean {
  const shards = [...sources.values()].flatMap((source) => [...source.shards.values()])
  return path !== undefined && shards.every((bytes) => bytes.path !== undefined)
}

interface Written {
  readonly counts: ReadonlyMap<string, GraftCounts>
  /** SHA-256 by file. */
  readonly digests: ReadonlyMap<string, string>
}

async function writeShards(job: TaskJob, folder: OutputFolder, options: WriteOptions): Promise<Written> {
  const files = new Map<string, OutputFile>()
  try {
    for (const { file, size, header } of job.plan.shards) {
      const opened = await folder.createFile(file, size)
      files.set(file, opened)
      await opened.write(header, 0)
    }
    const { events, counts } = follow(job, options)
    if (job.plan.threads > 0) return { counts, digests: await runThreads(job, folder.path!, events) }
    await runHere(job, files, events)
    return { counts, digests: await digestAll(job.plan, folder, options.signal) }
  } finally {
    for (const file of files.values()) await file.close()
  }
}

async function digestAll(
  { shards }: Plan,
  folder: OutputFolder,
  signal?: AbortSignal,
): Promise<Map<string, string>> {
  const digests = new Map<string, string>()
  for (const { file } of shards)
    digests.set(file, await digestFile(await folder.read(file), undefined, signal))
  return digests
}

/** Sums counts by tensor and turns finished tasks into progress. */
function follow({ checkpoint, plan }: TaskJob, { onProgress, signal }: WriteOptions) {
  const counts = new Map<string, GraftCounts>()
  const { bytesOf } = followCompletion(plan.shards, plan.work, checkpoint.tensors)
  const sizes = [...checkpoint.tensors.values()].map(({ dtype, shape }) => byteSize(dtype, numel(shape)))
  const bytesTotal = sizes.reduce((sum, size) => sum + size, 0)
  let bytesDone = 0
  const onTask: TaskEvents['onTask'] = ({ index, counts: added }) => {
    const { names } = plan.work.groups[plan.work.tasks[index]!.group]!
    for (const [i, { changed, swallowed }] of added.entries()) {
      if (changed === 0) continue
      const sum = counts.get(names[i]!) ?? { changed: 0, swallowed: 0 }
      counts.set(names[i]!, { changed: sum.changed + changed, swallowed: sum.swallowed + swallowed })
    }
    bytesDone += bytesOf(index)
    onProgress?.({ tensor: names[0]!, bytesDone, bytesTotal })
  }
  return { counts, events: { onTask, ...(signal ? { signal } : {}) } }
}
