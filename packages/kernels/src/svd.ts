import { ModelError } from '@polygraft/tensor'

/** a = u diag(values) v^T with k = min(rows, cols): the thin singular value decomposition. F64, vectors one by one. */
export interface Svd {
  /** k left vectors of length rows. Those of a value that is 0 are 0, all others orthonormal. */
  readonly u: readonly Float64Array[]
  /** k values, not negative, descending. */
  readonly values: Float64Array
  /** k right vectors of length cols; as `u`. */
  readonly v: readonly Float64Array[]
}

const MAX_SWEEPS = 60
/** What is smaller than this, beside the largest element, counts as 0. */
const SMALLEST = 2 ** -500

/**
 * The singular value decomposition of a matrix given by its columns: QR, then one-sided Jacobi on R (Hestenes 1958; Demmel and Veselic
 * 1992: small values are as accurate as large ones), in F64. About 20 k^3 + 4 rows cols k operations: meant for k of some hundreds.
 * @throws ModelError "not-finite".
 */
export function svd(columns: readonly Float64Array[]): Svd {
  const rows = columns[0]?.length ?? 0
  if (rows >= columns.length) return svdTall(columns)
  const { u, values, v } = svdTall(transposed(columns, rows))
  return { u: v, values, v: u }
}

/**
 * Makes columns orthonormal in place, by modified Gram-Schmidt, twice over (Giraud et al. 2005: twice is enough), in F64. What depends on
 * those before it up to rounding becomes 0.
 * @returns R by its columns, upper triangular: the columns as they were are the new ones times R.
 * @throws ModelError "not-finite".
 */
export function orthonormalize(columns: readonly Float64Array[]): Float64Array[] {
  return columns.map((column, j) => {
    const r = new Float64Array(columns.length)
    const before = norm(column)
    if (!Number.isFinite(before)) throw notFinite()
    for (let pass = 0; pass < 2; pass++)
      for (let i = 0; i < j; i++) {
        const along = dot(columns[i]!, column)
        r[i]! += along
        addTo(column, columns[i]!, -along)
      }
    const after = norm(column)
    const isDependent = after <= before * Number.EPSILON * Math.sqrt(column.length)
    r[j] = isDependent ? 0 : after
    if (isDependent) column.fill(0)
    else for (let i = 0; i < column.length; i++) column[i]! /= after
    return r
  })
}

function svdTall(columns: readonly Float64Array[]): Svd {
  const largest = columns.reduce((most, column) => Math.max(most, largestOf(column)), 0)
  if (!Number.isFinite(largest)) throw notFinite()
  // So that squares neither overflow nor vanish.
  const unit = largest === 0 ? 1 : 2 ** Math.floor(Math.log2(largest))
  const q = columns.map((column) => column.map((x) => (Math.abs(x / unit) < SMALLEST ? 0 : x / unit)))
  const r = orthonormalize(q)
  const { vectors, turned } = jacobi(r)
  const sizes = vectors.map((vector) => (norm(vector) < SMALLEST ? 0 : norm(vector)))
  const order = [...sizes.keys()].sort((a, b) => sizes[b]! - sizes[a]! || a - b)
  return {
    u: order.map((i) => combination(q, vectors[i]!, sizes[i]!)),
    values: Float64Array.from(order, (i) => sizes[i]! * unit),
    v: order.map((i) => turned[i]!.map((x) => (sizes[i] === 0 ? 0 : x))),
  }
}

/** Rotates pairs of columns until all are orthogonal: columns [v_1 v_2 ...] = vectors. */
function jacobi(columns: readonly Float64Array[]): { vectors: Float64Array[]; turned: Float64Array[] } {
  const vectors = columns.map((column) => column.slice())
  const turned = columns.map((_, i) => Float64Array.from(columns, (__, j) => (i === j ? 1 : 0)))
  const bound = Number.EPSILON * Math.sqrt(vectors.length)
  for (let sweep = 0, moved = true; moved && sweep < MAX_SWEEPS; sweep++) {
    moved = false
    for (let p = 0; p < vectors.length; p++)
      for (let q = p + 1; q < vectors.length; q++)
        if (rotate(vectors[p]!, vectors[q]!, turned[p]!, turned[q]!, bound)) moved = true
  }
  return { vectors, turned }
}

/** Whether the two had to be turned to be orthogonal. */
function rotate(x: Float64Array, y: Float64Array, v: Float64Array, w: Float64Array, bound: number): boolean {
  const [a, b, off] = [dot(x, x), dot(y, y), dot(x, y)]
  if (Math.abs(off) <= bound * Math.sqrt(a * b)) return false
  const zeta = (b - a) / (2 * off)
  const t = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.hypot(1, zeta))
  const c = 1 / Math.hypot(1, t)
  turn(x, y, c, c * t)
  turn(v, w, c, c * t)
  return true
}

function turn(x: Float64Array, y: Float64Array, c: number, s: number): void {
  for (let i = 0; i < x.length; i++) {
    const [a, b] = [x[i]!, y[i]!]
    x[i] = c * a - s * b
    y[i] = s * a + c * b
  }
}

/** sum_i weights_i columns_i / size; 0 where size is. */
function combination(columns: readonly Float64Array[], weights: Float64Array, size: number): Float64Array {
  const sum = new Float64Array(columns[0]!.length)
  if (size > 0) for (const [i, column] of columns.entries()) addTo(sum, column, weights[i]! / size)
  return sum
}

function transposed(columns: readonly Float64Array[], rows: number): Float64Array[] {
  return Array.from({ length: rows }, (_, row) => Float64Array.from(columns, (column) => column[row]!))
}

function addTo(into: Float64Array, column: Float64Array, by: number): void {
  for (let i = 0; i < into.length; i++) into[i]! += by * column[i]!
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!
  return sum
}

function norm(column: Float64Array): number {
  return Math.sqrt(dot(column, column))
}

function largestOf(column: Float64Array): number {
  return column.reduce((most, x) => (Number.isNaN(x) ? Number.NaN : Math.max(most, Math.abs(x))), 0)
}

function notFinite(): ModelError {
  return new ModelError({
    code: 'not-finite',
    message: 'A matrix with NaN or infinite elements has no singular values',
  })
}
