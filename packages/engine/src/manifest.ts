import type { NonFinite } from '@polygraft/kernels'
import type { Checkpoint, JsonObject, JsonValue, Skipped } from '@polygraft/tensor'
import type { Plan } from './plan.js'
import type { ShardResult } from './shard-result.js'

/** Name of the manifest inside a checkpoint. */
export const MANIFEST_FILE = 'polygraft.json'

/** What every written checkpoint says of itself, in `polygraft.json`. */
export interface Manifest {
  readonly polygraft: { readonly version: string }
  /** Each operation with its options and the ids of its inputs, in order. */
  readonly recipe: readonly JsonObject[]
  readonly inputs: readonly ManifestInput[]
  readonly shards: readonly ManifestFile[]
  /** Every other file but the manifest itself: config, index, tokenizer, ... */
  readonly files: readonly ManifestFile[]
  readonly parameters: number
  /** Label of expert e, one for each expert. */
  readonly experts?: readonly string[]
  /** Elements where the delta was not zero, and those of them that the output's dtype could not show. */
  readonly delta?: {
    readonly changed: number
    readonly swallowed: number
    readonly swallowedFraction: number
    /** Swallowed fraction by tensor, where it is not zero. */
    readonly tensors: Readonly<Record<string, number>>
  }
  /** Elements that were computed and are NaN or infinite, where there are any: all of them, and by tensor. */
  readonly nonFinite?: NonFinite & { readonly tensors: Readonly<Record<string, NonFinite>> }
  readonly skipped: readonly Skipped[]
}

/** An input by its content (see `openFiles` of tensor-io for how the id is made). */
export interface ManifestInput {
  readonly id: string
  readonly location: string
  readonly parameters: number
  readonly bytes: number
}

export interface ManifestFile {
  readonly file: string
  readonly bytes: number
  readonly sha256: string
}

/** Puts the manifest of a written checkpoint together. Pure. */
export function createManifest(
  checkpoint: Checkpoint,
  plan: Plan,
  { shards, files }: { readonly shards: readonly ShardResult[]; readonly files: readonly ManifestFile[] },
  version: string,
): Manifest {
  const { provenance, sources } = checkpoint
  const delta = deltaOf(shards)
  const nonFinite = nonFiniteOf(shards)
  return {
    polygraft: { version },
    recipe: provenance.recipe,
    inputs: [...sources.values()].map((source) => {
      const stored = [...source.tensors.values()]
      return {
        id: source.id,
        location: source.location,
        parameters: stored.reduce((sum, t) => sum + t.shape.reduce((n, size) => n * size, 1), 0),
        bytes: stored.reduce((sum, t) => sum + t.end - t.begin, 0),
      }
    }),
    shards: shards.map(({ file, bytes, sha256 }) => ({ file, bytes, sha256 })),
    files,
    parameters: plan.parameters,
    ...(provenance.experts ? { experts: provenance.experts } : {}),
    ...(delta ? { delta } : {}),
    ...(nonFinite ? { nonFinite } : {}),
    skipped: provenance.skipped,
  }
}

/** The manifest as the text of `polygraft.json`. */
export function formatManifest(manifest: Manifest): string {
  return `${JSON.stringify(manifest as unknown as JsonValue, undefined, 2)}\n`
}

function deltaOf(shards: readonly ShardResult[]): Manifest['delta'] {
  const counts = shards
    .flatMap((shard) => Object.entries(shard.counts))
    .filter(([, { changed }]) => changed > 0)
  if (counts.length === 0) return undefined
  let changed = 0
  let swallowed = 0
  const tensors: Record<string, number> = {}
  for (const [name, count] of counts) {
    changed += count.changed
    swallowed += count.swallowed
    if (count.swallowed > 0) tensors[name] = count.swallowed / count.changed
  }
  return { changed, swallowed, swallowedFraction: swallowed / changed, tensors }
}

function nonFiniteOf(shards: readonly ShardResult[]): Manifest['nonFinite'] {
  const tensors: Record<string, NonFinite> = {}
  const all = { fromInputs: 0, made: 0 }
  for (const [name, { nonFinite }] of shards.flatMap((shard) => Object.entries(shard.counts))) {
    if (!nonFinite) continue
    tensors[name] = nonFinite
    all.fromInputs += nonFinite.fromInputs
    all.made += nonFinite.made
  }
  return Object.keys(tensors).length > 0 ? { ...all, tensors } : undefined
}
