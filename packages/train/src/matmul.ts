/** Values of one precision: F32 in training; F64 where a test compares gradients with finite differences. */
export type Floats = Float32Array | Float64Array

/** The products of `Compute` in plain TypeScript. */
export const plainMatmul = { nt, nn, tn }

function nt(m: number, n: number, k: number, a: Floats, b: Floats, c: Floats, add: boolean): void {
  for (let i = 0; i < m; i++)
    for (let j = 0; j < n; j++) {
      let sum = 0
      for (let l = 0; l < k; l++) sum += a[i * k + l]! * b[j * k + l]!
      c[i * n + j] = add ? c[i * n + j]! + sum : sum
    }
}

function nn(m: number, n: number, k: number, a: Floats, b: Floats, c: Floats, add: boolean): void {
  if (!add) c.fill(0, 0, m * n)
  for (let i = 0; i < m; i++) for (let l = 0; l < k; l++) addScaled(a[i * k + l]!, b, l * n, c, i * n, n)
}

function tn(m: number, n: number, k: number, a: Floats, b: Floats, c: Floats, add: boolean): void {
  if (!add) c.fill(0, 0, m * n)
  for (let l = 0; l < k; l++) for (let i = 0; i < m; i++) addScaled(a[l * m + i]!, b, l * n, c, i * n, n)
}

/** y[yAt + i] += by x[xAt + i] for `count` elements. */
export function addScaled(by: number, x: Floats, xAt: number, y: Floats, yAt: number, count: number): void {
  for (let i = 0; i < count; i++) y[yAt + i]! += by * x[xAt + i]!
}
