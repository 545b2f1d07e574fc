import type { AdamWScalars } from '@polygraft/kernels'
import type { AttentionShape, DocumentTable } from './_attention.js'
import type { Rotations } from './_heads.js'
import type { Floats } from './matmul.js'

/**
 * What a training step is made of, on row-major matrices without gaps. Operands lie in the workspace that this belongs to, and never
 * overlap. What is asked for is done by the next `flush`: only after it may TypeScript read or write the memory. Sums run in a fixed order,
 * so equal inputs give equal bytes.
 */
export interface Compute {
  /** Returns when all that was asked for is done. */
  flush(): void
  /** c [m, n] = or += a [m, k] b [n, k]^T: y = x W^T. */
  nt(m: number, n: number, k: number, a: Floats, b: Floats, c: Floats, add: boolean): void
  /** c [m, n] = or += a [m, k] b [k, n]: dx = dy W. */
  nn(m: number, n: number, k: number, a: Floats, b: Floats, c: Floats, add: boolean): void
  /** c [m, n] = or += a [k, m]^T b [k, n]: dW = dy^T x. */
  tn(m: number, n: number, k: number, a: Floats, b: Floats, c: Floats, add: boolean): void
  /** x [rows, columns] += bias on every row. */
  addBias(x: Floats, bias: Floats, rows: number, columns: number): void
  /** sums [columns] += the sums over rows of x [rows, columns]. */
  addColumns(sums: Floats, x: Floats, rows: number, columns: number): void
  /** x = 0 */
  clear(x: Floats): void
  /** out = x */
  copy(x: Floats, out: Floats): void
  /** RMSNorm (arXiv:1910.07467): y = x r w with r = 1 / sqrt(mean(x^2) + eps), per row of `width`. Keeps r in `scales` [rows]. */
  norm(x: Floats, weight: Floats, eps: number, rows: number, width: number, y: Floats, scales: Floats): void
  /** dx = or += r (w dy - x r^2 mean(w dy x)) */
  normBackward(
    x: Floats,
    weight: Floats,
    scales: Floats,
    dy: Floats,
    rows: number,
    width: number,
    dx: Floats,
    add: boolean,
  ): void
  /** gradient [width] += the sum over rows of dy x r. */
  normWeightGradient(
    x: Floats,
    scales: Floats,
    dy: Floats,
    rows: number,
    width: number,
    gradient: Floats,
  ): void
  /** hidden = silu(gate) up */
  silu(gate: Floats, up: Floats, hidden: Floats): void
  /** gate and up become their gradients, given that of hidden. */
  siluBackward(gate: Floats, up: Floats, dHidden: Floats): void
  /** Rotates x [rows, heads, D] in place (RoPE, arXiv:2104.09864); -1 rotates back, which is the gradient. */
  rotate(
    x: Floats,
    rotations: Rotations,
    rows: number,
    heads: number,
    headDim: number,
    direction: 1 | -1,
  ): void
  /**
   * Causal softmax(q k^T / sqrt(D)) v within each document. q, o: [T, heads, D]; k, v: [T, key-value heads, D]. The probabilities, zeros
   * where a position does not see, stay in `p`.
   */
  attention(
    shape: AttentionShape,
    documents: DocumentTable,
    q: Floats,
    k: Floats,
    v: Floats,
    p: Floats,
    o: Floats,
  ): void
  /** dq replaces; dk and dv are added to, since several heads share them. */
  attentionBackward(
    shape: AttentionShape,
    documents: DocumentTable,
    q: Floats,
    k: Floats,
    v: Floats,
    p: Floats,
    dO: Floats,
    dq: Floats,
    dk: Floats,
    dv: Floats,
  ): void
  /** x [rows, width] = softmax(x) weights[row]; the row's maximum and its sum of e^(x - maximum) to stats [rows, 2]. */
  weightedSoftmax(x: Floats, weights: Floats, stats: Floats, rows: number, width: number): void
  /** out row i = x row indices[i]. */
  gather(x: Floats, indices: Int32Array, out: Floats, width: number): void
  /** table row indices[i] += x row i, in the order of i. */
  scatter(x: Floats, indices: Int32Array, table: Floats, width: number): void
  /** out row t += the sum over s of weights[t, s] y row places[t, s]; places and weights [rows, topK]. */
  combine(
    y: Floats,
    places: Int32Array,
    weights: Floats,
    out: Floats,
    rows: number,
    topK: number,
    width: number,
  ): void
  /** With d row sources[i]: dots[i] = d . y row i, dy row i = weights[i] d. */
  spread(
    d: Floats,
    sources: Int32Array,
    y: Floats,
    weights: Floats,
    dy: Floats,
    dots: Floats,
    width: number,
  ): void
  adamW(value: Floats, gradient: Floats, first: Floats, second: Floats, step: AdamWScalars): void
  /** The sum of the squares of all elements, in F64, in the order of `tensors`. Flushes. */
  squares(tensors: readonly Floats[]): number
}
