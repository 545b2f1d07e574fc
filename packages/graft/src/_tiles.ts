import { evaluate } from '@polygraft/engine'
import { byteSize, type Checkpoint, numel, type Tensor } from '@polygraft/tensor'
import type { VerifyOptions } from './verify-report.js'

const TILE_ELEMENTS = 2 ** 20

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

/** The bytes that a tile of `tensor` is stored as, by the reference kernels. */
export function readTile(tensor: Tensor, sources: Checkpoint['sources'], tile: Tile): Promise<Uint8Array> {
  return evaluate(tensor, sources, { ...tile, kernels: 'reference' })
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
