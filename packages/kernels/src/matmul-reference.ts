import type { FloatArray } from './float-formats.js'
import { K_BLOCK } from './matmul.js'

/**
 * What `createMatmul` computes, in plain TypeScript: c [m, n] of a [m, k] and b given as functions of their indices. F32 (F64 where c
 * is), every multiplication and addition rounded, sums over blocks of K_BLOCK added in order to `c`.
 */
export function referenceProduct(
  [m, n, k]: readonly [number, number, number],
  a: (row: number, k: number) => number,
  b: (column: number, k: number) => number,
  c: FloatArray,
  adds = false,
): void {
  const round = c instanceof Float64Array ? (x: number) => x : Math.fround
  for (let row = 0; row < m; row++)
    for (let column = 0; column < n; column++) {
      let sum: number | undefined = adds ? c[row * n + column]! : undefined
      for (let begin = 0; begin < k; begin += K_BLOCK) {
        let part = 0
        for (let i = begin; i < Math.min(k, begin + K_BLOCK); i++)
          part = round(part + round(a(row, i) * b(column, i)))
        sum = sum === undefined ? part : round(sum + part)
      }
      c[row * n + column] = sum ?? 0
    }
}
