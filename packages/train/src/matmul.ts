/** Values of one precision: F32 in training; F64 where a test compares gradients with finite differences. */
export type Floats = Float32Array | Float64Array

/**
 * The three products that a linear layer and its gradients are made of, row-major. With `add` the result is added to `c`, else it
 * replaces it. Operands never overlap. Sums run over k in a fixed order, so equal inputs give equal bytes.
 */
export interface Matmul {
  /** c [m, n] = a [m, k] b [n, k]^T: y = x W^T. */
  nt(m: number, n: number, k: number, a: Floats, b: Floats, c: Floats, add: boolean): void
  /** c [m, n] = a [m, k] b [k, n]: dx = dy W. */
  nn(m: number, n: number, k: number, a: Floats, b: Floats, c: Floats, add: boolean): void
  /** c [m, n] = a [k, m]^T b [k, n]: dW = dy^T x. */
  tn(m: number, n: number, k: number, a: Floats, b: Floats, c: Floats, add: boolean): void
}

/** The products in plain TypeScript, in the precision of their operands: the reference, and the one for F64. */
export const plainMatmul: Matmul = { nt, nn, tn }

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
  for (let i = 0; i < m; i++) for (let l = 0; l < k; l++) addRow(a[i * k + l]!, b, l * n, c, i * n, n)
}

function tn(m: number, n: number, k: number, a: Floats, b: Floats, c: Floats, add: boolean): void {
  if (!add) c.fill(0, 0, m * n)
  for (let l = 0; l < k; l++) for (let i = 0; i < m; i++) addRow(a[l * m + i]!, b, l * n, c, i * n, n)
}

function addRow(by: number, b: Floats, bAt: number, c: Floats, cAt: number, n: number): void {
  for (let j = 0; j < n; j++) c[cAt + j]! += by * b[bAt + j]!
}
