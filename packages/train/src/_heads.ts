import type { Floats } from './matmul.js'

/** cos and sin [T, R / 2] of each token's position. */
export interface Rotations {
  readonly cos: Floats
  readonly sin: Floats
  /** Rotated dimensions of a head, R. */
  readonly dimensions: number
}

/**
 * `Compute.rotate` in plain TypeScript: (a, b) -> (a cos - b sin, b cos + a sin) for a in the first half of the R rotated dimensions and b
 * in the second, as transformers lays it out.
 */
export function rotate(
  x: Floats,
  { cos, sin, dimensions }: Rotations,
  rows: number,
  heads: number,
  headDim: number,
  direction: 1 | -1,
): void {
  const half = dimensions / 2
  for (let row = 0; row < rows * heads; row++) {
    const angles = Math.floor(row / heads) * half
    const at = row * headDim
    for (let i = 0; i < half; i++) {
      const c = cos[angles + i]!
      const s = direction * sin[angles + i]!
      const a = x[at + i]!
      const b = x[at + half + i]!
      x[at + i] = a * c - b * s
      x[at + half + i] = b * c + a * s
    }
  }
}
