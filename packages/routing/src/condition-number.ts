/** A router whose condition number is above this starts with experts that can hardly be told apart: worth a warning. */
export const CONDITION_NUMBER_WARNING = 5

const MAX_SWEEPS = 60

/**
 * sigma_max / sigma_min of a router R [E, H], row-major: how unevenly its rows (columns where E > H) span their space. 1 for an
 * orthogonal router; Infinity when it is rank-deficient at working precision, which holds for ratios above about 1e7; NaN when
 * it holds a value that is not finite. Cyclic Jacobi on the smaller Gram matrix, in F64 (Golub & Van Loan, section 8.5).
 */
export function conditionNumber(router: ArrayLike<number>, numExperts: number, hiddenSize: number): number {
  const gram = gramMatrix(router, numExperts, hiddenSize)
  const size = Math.min(numExperts, hiddenSize)
  if (gram.some((value) => !Number.isFinite(value))) return Number.NaN
  for (let sweep = 0; sweep < MAX_SWEEPS && !isDiagonal(gram, size); sweep++)
    for (let p = 0; p < size; p++) for (let q = p + 1; q < size; q++) rotate(gram, size, p, q)
  const eigenvalues = Array.from({ length: size }, (_, i) => gram[i * size + i]!)
  const largest = Math.max(...eigenvalues)
  const smallest = Math.min(...eigenvalues)
  return smallest > largest * size * Number.EPSILON ? Math.sqrt(largest / smallest) : Infinity
}

/** R R^T, or R^T R where that is smaller. */
function gramMatrix(router: ArrayLike<number>, rows: number, cols: number): Float64Array {
  const wide = rows <= cols
  const [count, length] = wide ? [rows, cols] : [cols, rows]
  const at = (vector: number, i: number) => router[wide ? vector * cols + i : i * cols + vector]!
  const gram = new Float64Array(count * count)
  for (let p = 0; p < count; p++)
    for (let q = 0; q <= p; q++) {
      let sum = 0
      for (let i = 0; i < length; i++) sum += at(p, i) * at(q, i)
      gram[p * count + q] = gram[q * count + p] = sum
    }
  return gram
}

function isDiagonal(a: Float64Array, size: number): boolean {
  for (let p = 0; p < size; p++)
    for (let q = p + 1; q < size; q++) {
      const bound = Number.EPSILON * Math.sqrt(Math.abs(a[p * size + p]! * a[q * size + q]!))
      if (Math.abs(a[p * size + q]!) > bound) return false
    }
  return true
}

/** One Jacobi rotation of the symmetric matrix `a` that zeroes a[p, q]. */
function rotate(a: Float64Array, size: number, p: number, q: number): void {
  const off = a[p * size + q]!
  if (off === 0) return
  const theta = (a[q * size + q]! - a[p * size + p]!) / (2 * off)
  const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1))
  const c = 1 / Math.hypot(t, 1)
  const s = t * c
  for (let i = 0; i < size; i++) mix(a, i * size + p, i * size + q, c, s)
  for (let i = 0; i < size; i++) mix(a, p * size + i, q * size + i, c, s)
  a[p * size + q] = a[q * size + p] = 0
}

function mix(a: Float64Array, i: number, j: number, c: number, s: number): void {
  const x = a[i]!
  const y = a[j]!
  a[i] = c * x - s * y
  a[j] = s * x + c * y
}
