import { statSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import type { ShardLayout } from '@polygraft/tensor-io'
import { addTo } from '../_add-to.js'
import type { TensorCounts } from '../evaluate.js'
import type { BlockingFiles } from './blocking-files.js'
import { createDigest, type Digest } from './digest.js'

/*
 * How far a shard has come, a line of JSON each few MiB: up to where its bytes are complete, their SHA-256, and what was counted in the
 * tasks that end there and were in no line before. Whoever goes on digests the bytes anyway, and believes as much as the digests confirm.
 */

/** A line of the journal. */
export interface Step {
  readonly until: number
  /** Of bytes [0, until) of the file. */
  readonly sha256: string
  readonly counts: Readonly<Record<string, TensorCounts>>
}

/** What can be kept of a shard that an earlier run began. */
export interface KeptShard {
  readonly until: number
  /** Over bytes [0, until). */
  readonly digest: Digest
  readonly counts: Readonly<Record<string, TensorCounts>>
}

const CHUNK_BYTES = 2 ** 20

export function formatStep(step: Step): string {
  return JSON.stringify(step)
}

/** As much of the shard `layout` at `path` as is what `lines` say; undefined where that is nothing. */
export async function readKept(
  files: BlockingFiles,
  path: string,
  { file, size }: ShardLayout,
  lines: readonly string[],
  signal?: AbortSignal,
): Promise<KeptShard | undefined> {
  if (statSync(path, { throwIfNoEntry: false })?.size !== size) return undefined
  const chunk = new Uint8Array(CHUNK_BYTES)
  const counts: Record<string, TensorCounts> = {}
  let digest = createDigest()
  let at = 0
  let kept: Pick<KeptShard, 'until' | 'digest'> | undefined
  for (const step of lines.map(parseStep)) {
    if (!step || step.until <= at || step.until > size) break
    while (at < step.until) {
      signal?.throwIfAborted()
      const bytes = chunk.subarray(0, Math.min(chunk.length, step.until - at))
      files.readBack(file, at, bytes)
      digest.update(bytes)
      at += bytes.length
      await setImmediate()
    }
    const next = digest.copy()
    if (digest.hex() !== step.sha256) break
    digest = next
    kept = { until: at, digest: next.copy() }
    for (const [name, added] of Object.entries(step.counts)) addTo(counts, name, added)
  }
  return kept && { ...kept, counts }
}

function parseStep(line: string): Step | undefined {
  try {
    const { until, sha256, counts } = JSON.parse(line) as Step
    return Number.isSafeInteger(until) && typeof counts === 'object' ? { until, sha256, counts } : undefined
  } catch {
    return undefined
  }
}
