import { ModelError } from '@polygraft/tensor'
import type { ShardLayout } from '@polygraft/tensor-io'
import type { TensorCounts } from './evaluate.js'

/** A shard that is written. Plain data: noted beside an unfinished output, and gathered from several machines. */
export interface ShardResult {
  readonly file: string
  readonly bytes: number
  readonly sha256: string
  /** Of tensors that a delta changed. */
  readonly counts: Readonly<Record<string, TensorCounts>>
}

/** A result as a note. */
export function formatShardResult(result: ShardResult): string {
  return JSON.stringify(result)
}

/**
 * The result that `text` notes of the shard `layout`.
 * @throws ModelError 'bad-note' when it does not.
 */
export function parseShardResult(text: string, { file, size }: ShardLayout): ShardResult {
  const result = parse(text)
  if (result?.file === file && result.bytes === size && /^[0-9a-f]{64}$/.test(result.sha256)) return result
  throw new ModelError({
    code: 'bad-note',
    message: 'The note of a finished shard is not usable',
    file,
    expected: `{ file, bytes: ${size}, sha256, counts }`,
    received: text.slice(0, 200),
    next: 'Remove the unfinished output and start again.',
  })
}

function parse(text: string): ShardResult | undefined {
  try {
    return JSON.parse(text) as ShardResult
  } catch {
    return undefined
  }
}
