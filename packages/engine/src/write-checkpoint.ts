import { byteSize, type Checkpoint, numel, type Tensor } from '@polygraft/tensor'
import { formatIndex, type OutputFile, type OutputFolder, type ShardLayout } from '@polygraft/tensor-io'
import { drive } from './_drive.js'
import type { Kernels } from './_kernel-pool.js'
import { createEvaluator, type Evaluator, type GraftCounts } from './evaluate.js'
import {
  createManifest,
  formatManifest,
  MANIFEST_FILE,
  type Manifest,
  type ManifestShard,
} from './manifest.js'
import { createDigest, type Digest } from './node/digest.js'
import { type Plan, type PlanOptions, planCheckpoint } from './plan.js'

const INDEX_FILE = 'model.safetensors.index.json'

/** How far a write has come. */
export interface Progress {
  /** The tensor being written. */
  readonly tensor: string
  readonly file: string
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
 * The caller publishes or discards the folder.
 * @throws ModelError when a tensor cannot be evaluated, a file is truncated or the disk is full.
 */
export async function writeCheckpoint(
  checkpoint: Checkpoint,
  folder: OutputFolder,
  options: WriteOptions,
): Promise<Manifest> {
  const plan = planCheckpoint(checkpoint, options)
  const run = startRun(checkpoint, plan, options)
  const shards: ManifestShard[] = []
  for (const layout of plan.shards) shards.push(await writeShard(run, layout, folder))
  if (plan.shards.length > 1) await folder.writeFile(INDEX_FILE, formatIndex(plan.shards))
  await folder.writeFile('config.json', `${JSON.stringify(checkpoint.config, undefined, 2)}\n`)
  for (const [name, bytes] of checkpoint.files) await folder.writeFile(name, bytes)
  const manifest = createManifest(checkpoint, plan, shards, run.counts, options.version)
  await folder.writeFile(MANIFEST_FILE, formatManifest(manifest))
  return manifest
}

interface Run {
  readonly checkpoint: Checkpoint
  readonly plan: Plan
  readonly options: WriteOptions
  readonly evaluator: Evaluator
  readonly tile: Uint8Array
  readonly counts: Map<string, GraftCounts>
  readonly bytesTotal: number
  bytesDone: number
}

function startRun(checkpoint: Checkpoint, plan: Plan, options: WriteOptions): Run {
  const sizes = [...checkpoint.tensors.values()].map((tensor) => byteSize(tensor.dtype, numel(tensor.shape)))
  return {
    checkpoint,
    plan,
    options,
    evaluator: createEvaluator(checkpoint.sources, plan.tileElements, options.kernels),
    tile: new Uint8Array(plan.tileElements * 8),
    counts: new Map(),
    bytesTotal: sizes.reduce((sum, size) => sum + size, 0),
    bytesDone: 0,
  }
}

async function writeShard(run: Run, layout: ShardLayout, folder: OutputFolder): Promise<ManifestShard> {
  const file = await folder.createFile(layout.file, layout.size)
  const digest = createDigest()
  try {
    await file.write(layout.header, 0)
    digest.update(layout.header)
    // The layout lists tensors by offset, so that the digest sees the file's bytes in order.
    for (const [name, { begin }] of layout.tensors) {
      const tensor = run.checkpoint.tensors.get(name)!
      const counts: GraftCounts = { changed: 0, swallowed: 0 }
      await writeTensor(run, name, tensor, counts, { layout, file, digest, begin })
      if (counts.changed > 0) run.counts.set(name, counts)
    }
  } finally {
    await file.close()
  }
  return { file: layout.file, bytes: layout.size, sha256: digest.hex() }
}

async function writeTensor(
  run: Run,
  name: string,
  tensor: Tensor,
  counts: GraftCounts,
  to: { layout: ShardLayout; file: OutputFile; digest: Digest; begin: number },
): Promise<void> {
  const { plan, options, evaluator } = run
  const total = numel(tensor.shape)
  for (let begin = 0; begin < total; begin += plan.tileElements) {
    options.signal?.throwIfAborted()
    const count = Math.min(plan.tileElements, total - begin)
    const bytes = run.tile.subarray(0, byteSize(tensor.dtype, count))
    await drive(evaluator.fill(tensor.expr, tensor.dtype, begin, count, bytes, counts))
    await to.file.write(bytes, to.begin + byteSize(tensor.dtype, begin))
    to.digest.update(bytes)
    run.bytesDone += bytes.length
    options.onProgress?.({
      tensor: name,
      file: to.layout.file,
      bytesDone: run.bytesDone,
      bytesTotal: run.bytesTotal,
    })
  }
}
