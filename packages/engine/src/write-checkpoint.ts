import { type ByteSource, byteSize, type Checkpoint, numel } from '@polygraft/tensor'
import { formatConfig, formatIndex, type OutputFolder } from '@polygraft/tensor-io'
import { digestFile, runLocal } from '#platform'
import { addTo } from './_add-to.js'
import { followCompletion } from './_completion.js'
import type { Kernels } from './_kernel-pool.js'
import type { TensorCounts } from './evaluate.js'
import {
  createManifest,
  formatManifest,
  MANIFEST_FILE,
  type Manifest,
  type ManifestFile,
} from './manifest.js'
import { type Plan, type PlanOptions, planCheckpoint } from './plan.js'
import { runHere } from './run-here.js'
import type { TaskEvents, TaskJob } from './run-tasks.js'
import { formatShardResult, parseShardResult, type ShardResult } from './shard-result.js'
import { selectShards } from './tasks.js'

const INDEX_FILE = 'model.safetensors.index.json'

/** How far a write has come. */
export interface Progress {
  /** A tensor that was just written to. */
  readonly tensor: string
  /** Bytes of tensors written so far, and of all tensors. */
  readonly bytesDone: number
  readonly bytesTotal: number
}

export interface RunOptions {
  /** 'simd' (default) or the plain TypeScript reference; the bytes are the same. */
  readonly kernels?: Kernels
  readonly onProgress?: (progress: Progress) => void
  /** Checked between tiles; aborting throws the signal's reason. The caller then discards or leaves the folder. */
  readonly signal?: AbortSignal
}

export interface WriteOptions extends PlanOptions, RunOptions {
  /** Recorded in the manifest. */
  readonly version: string
}

/**
 * Evaluates `checkpoint` tile by tile into `folder`: shards, index, `config.json`, carried files, `polygraft.json`.
 * Threads are used where `options.threads` asks for them and inputs and output are local files; the bytes do not depend
 * on it. Shards that the folder's notes know as finished are not written again. The caller publishes the folder.
 * @throws ModelError when a tensor cannot be evaluated, a file is truncated or the disk is full.
 */
export async function writeCheckpoint(
  checkpoint: Checkpoint,
  folder: OutputFolder,
  options: WriteOptions,
): Promise<Manifest> {
  const plan = planCheckpoint(checkpoint, options)
  const results = await writeShards(
    checkpoint,
    plan,
    await believeIntact(plan, folder, options.signal),
    options,
  )
  return writeRest(checkpoint, plan, folder, results, options.version)
}

/** The folder without the notes of finished shards that were changed while they waited, so that those are written again. */
async function believeIntact(plan: Plan, folder: OutputFolder, signal?: AbortSignal): Promise<OutputFolder> {
  if (!folder.notes) return folder
  const earlier = new Map<string, string>()
  for (const layout of plan.shards) {
    const note = folder.notes.earlier.get(layout.file)
    if (note === undefined) continue
    const { sha256 } = parseShardResult(note, layout)
    if ((await digestFile(await folder.read(layout.file), undefined, signal)) === sha256)
      earlier.set(layout.file, note)
  }
  return { ...folder, notes: { ...folder.notes, earlier } }
}

/**
 * Writes the shards of `plan` (all, or those selected) and nothing else. Each finished one is noted where the folder
 * keeps notes; those noted already are taken as they are.
 */
export async function writeShards(
  checkpoint: Checkpoint,
  plan: Plan,
  folder: OutputFolder,
  options: RunOptions,
  selected: ReadonlySet<number> = new Set(plan.shards.keys()),
): Promise<readonly ShardResult[]> {
  const results = new Map<string, ShardResult>()
  const missing = new Set<number>()
  for (const shard of selected) {
    const layout = plan.shards[shard]!
    const note = folder.notes?.earlier.get(layout.file)
    if (note === undefined) missing.add(shard)
    else results.set(layout.file, parseShardResult(note, layout))
  }
  if (missing.size > 0) {
    const job = { checkpoint, plan: selectShards(plan, missing), kernels: options.kernels ?? 'simd' }
    const events = follow(job, folder, options, results)
    await (runLocal(job, folder, events) ?? runHere(job, folder, events))
  }
  return [...selected].map((shard) => results.get(plan.shards[shard]!.file)!)
}

/** Writes all but the shards: index, config, carried files, manifest. */
export async function writeRest(
  checkpoint: Checkpoint,
  plan: Plan,
  folder: OutputFolder,
  shards: readonly ShardResult[],
  version: string,
): Promise<Manifest> {
  const { config, floatFields } = checkpoint
  const rest = new Map<string, string | ByteSource>(checkpoint.files)
  if (Object.keys(config).length > 0) rest.set('config.json', formatConfig(config, floatFields))
  if (plan.shards.length > 1) rest.set(INDEX_FILE, formatIndex(plan.shards))
  const files: ManifestFile[] = []
  for (const [file, data] of [...rest].sort(([a], [b]) => (a < b ? -1 : 1))) {
    await folder.writeFile(file, data)
    const written = await folder.read(file)
    files.push({ file, bytes: written.size, sha256: await digestFile(written) })
  }
  const manifest = createManifest(checkpoint, plan, { shards, files }, version)
  await folder.writeFile(MANIFEST_FILE, formatManifest(manifest))
  return manifest
}

/** Turns what happens in a run into results, notes and progress. */
function follow(
  { checkpoint, plan }: TaskJob,
  folder: OutputFolder,
  { onProgress, signal }: RunOptions,
  results: Map<string, ShardResult>,
): TaskEvents {
  const counts = new Map<string, Record<string, TensorCounts>>(plan.shards.map(({ file }) => [file, {}]))
  const fileOf = new Map(
    plan.shards.flatMap(({ file, tensors }) => [...tensors.keys()].map((name) => [name, file])),
  )
  const { bytesOf } = followCompletion(plan.shards, plan.work, checkpoint.tensors)
  const sizes = [...checkpoint.tensors.values()].map(({ dtype, shape }) => byteSize(dtype, numel(shape)))
  const bytesTotal = sizes.reduce((sum, size) => sum + size, 0)
  const bytesMissing = plan.work.tasks.reduce((sum, _, index) => sum + bytesOf(index), 0)
  let bytesDone = bytesTotal - bytesMissing
  const add = (name: string, count: TensorCounts) => addTo(counts.get(fileOf.get(name)!)!, name, count)
  return {
    ...(signal ? { signal } : {}),
    onKept(kept, bytes) {
      for (const tensors of kept) for (const [name, count] of Object.entries(tensors)) add(name, count)
      bytesDone += bytes
    },
    onTask({ index, counts: added }) {
      const { names } = plan.work.groups[plan.work.tasks[index]!.group]!
      for (const [i, count] of added.entries())
        if (count.changed > 0 || count.nonFinite) add(names[i]!, count)
      bytesDone += bytesOf(index)
      onProgress?.({ tensor: names[0]!, bytesDone, bytesTotal })
    },
    async onShard(file, sha256) {
      const { size, tensors } = plan.shards.find((shard) => shard.file === file)!
      const result = { file, bytes: size, sha256, counts: inOrder(counts.get(file)!, tensors.keys()) }
      await folder.notes?.write(file, formatShardResult(result))
      results.set(file, result)
    },
  }
}

/** Threads end in any order; what is written must not depend on it. */
function inOrder<T>(record: Readonly<Record<string, T>>, names: Iterable<string>): Record<string, T> {
  return Object.fromEntries(
    [...names].filter((name) => Object.hasOwn(record, name)).map((name) => [name, record[name]!]),
  )
}
