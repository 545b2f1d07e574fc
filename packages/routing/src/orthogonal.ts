import { randomValues } from '@polygraft/kernels'

/**
 * A random matrix [rows, cols] with orthonormal rows, or orthonormal columns where rows > cols; row-major F32.
 * Deterministic: normal draws of (seed, name), then modified Gram-Schmidt, twice over, in F64 (Giraud et al. 2005: twice is
 * enough for orthogonality at working precision), rounded once.
 */
export function orthogonal(rows: number, cols: number, seed: number, name: string): Float32Array {
  const draws = new Float32Array(rows * cols)
  randomValues('normal', 1, seed, name, 0, draws)
  const wide = rows <= cols
  const [count, length] = wide ? [rows, cols] : [cols, rows]
  const at = (vector: number, i: number) => (wide ? vector * cols + i : i * cols + vector)
  const basis: Float64Array[] = []
  for (let vector = 0; vector < count; vector++) {
    const v = Float64Array.from({ length }, (_, i) => draws[at(vector, i)]!)
    for (const unit of basis) removeComponent(v, unit)
    for (const unit of basis) removeComponent(v, unit)
    const norm = Math.sqrt(dot(v, v))
    for (let i = 0; i < length; i++) draws[at(vector, i)] = v[i]! /= norm
    basis.push(v)
  }
  return draws
}

/** v -= (v . unit) unit */
function removeComponent(v: Float64Array, unit: Float64Array): void {
  const along = dot(v, unit)
  for (let i = 0; i < v.length; i++) v[i]! -= along * unit[i]!
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!
  return sum
}
