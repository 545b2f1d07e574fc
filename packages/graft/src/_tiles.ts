import { evaluate } from '@polygraft/engine'
import { byteSize, type Checkpoint, numel, type Tensor } from '@polygraft/tensor'
import type { VerifyOptions } from './verify-report.js'

const TILE_ELEMENTS = 2 ** 20
/** Of each tensor, the elements that the plain TypeScript kernels compute; enough for all of a small model. */
const REFERENCE_ELEMENTS = 2 ** 16

/** Elements [begin, end) of a tensor. */
export interface Tile {
  readonly begin: number
  readonly end: number
}

/** The tiles that cover `tensor`; none where it has no elements. */
export function* tilesOf(tensor: Tensor): Generator<Tile> {
  const elements = numel(tensor.shape)
  for (let begin = 0; begin < elements; begin += TILE_ELEMENTS)
    yield { begin, end: Math.min(elements, begin + TILE_ELEMENTS) }
}

/**
 * The bytes that a tile of `tensor` is stored as. The first elements of each tensor are computed by the reference kernels,
 * all others by the fast ones, which took part in the writing: bytes that differ show a kernel that differs.
 */
export async function readTile(
  tensor: Tensor,
  sources: Checkpoint['sources'],
  { begin, end }: Tile,
): Promise<Uint8Array> {
  const head = Math.min(end, Math.max(begin, REFERENCE_ELEMENTS))
  const out = new Uint8Array(byteSize(tensor.dtype, end - begin))
  if (head > begin) out.set(await evaluate(tensor, sources, { begin, end: head, kernels: 'reference' }))
  if (head < end)
    out.set(await evaluate(tensor, sources, { begin: head, end }), byteSize(tensor.dtype, head - begin))
  return out
}

/** Whether two arrays hold the same bytes; compared by the word where they are aligned. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  const words = a.byteOffset % 4 === 0 && b.byteOffset % 4 === 0 ? Math.floor(a.length / 4) : 0
  const [left, right] = [a, b].map((bytes) => new Uint32Array(bytes.buffer, words && bytes.byteOffset, words))
  for (let i = 0; i < words; i++) if (left![i] !== right![i]) return false
  for (let i = words * 4; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

/** Counts the bytes of `checkpoint` that are done, for `onProgress`; stops when the signal says so. */
export function createProgress(checkpoint: Checkpoint, { onProgress, signal }: VerifyOptions) {
  let total = 0
  for (const { dtype, shape } of checkpoint.tensors.values()) total += byteSize(dtype, numel(shape))
  let done = 0
  return (bytes: number) => {
    signal?.throwIfAborted()
    done += bytes
    onProgress?.(done, total)
  }
}
