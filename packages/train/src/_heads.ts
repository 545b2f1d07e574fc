import type { Floats } from './matmul.js'

/** cos and sin [T, R / 2] of each token's position. */
export interface Rotations {
  readonly cos: Float32Array
  readonly sin: Float32Array
  /** Rotated dimensions of a head, R. */
  readonly dimensions: number
}

/** Token-major [T, heads, D] to head-major [heads, T, D]. */
export function toHeads(x: Floats, tokens: number, heads: number, headDim: number, out: Floats): void {
  for (let t = 0; t < tokens; t++)
    for (let h = 0; h < heads; h++) {
      const from = (t * heads + h) * headDim
      const to = (h * tokens + t) * headDim
      for (let i = 0; i < headDim; i++) out[to + i] = x[from + i]!
    }
}

/** Head-major [heads, T, D] to token-major [T, heads, D]. */
export function fromHeads(x: Floats, tokens: number, heads: number, headDim: number, out: Floats): void {
  for (let t = 0; t < tokens; t++)
    for (let h = 0; h < heads; h++) {
      const from = (h * tokens + t) * headDim
      const to = (t * heads + h) * headDim
      for (let i = 0; i < headDim; i++) out[to + i] = x[from + i]!
    }
}

/**
 * Rotates head-major rows in place: (a, b) -> (a cos - b sin, b cos + a sin) for a in the first half of the R rotated dimensions and b
 * in the second (RoPE, arXiv:2104.09864, as transformers lays it out). `direction` -1 rotates back, which is the gradient.
 */
export function rotate(
  x: Floats,
  { cos, sin, dimensions }: Rotations,
  tokens: number,
  heads: number,
  headDim: number,
  direction: 1 | -1,
): void {
  const half = dimensions / 2
  for (let h = 0; h < heads; h++)
    for (let t = 0; t < tokens; t++) {
      const at = (h * tokens + t) * headDim
      for (let i = 0; i < half; i++) {
        const c = cos[t * half + i]!
        const s = direction * sin[t * half + i]!
        const a = x[at + i]!
        const b = x[at + half + i]!
        x[at + i] = a * c - b * s
        x[at + half + i] = b * c + a * s
      }
    }
}
