import { orthonormalize, randomValues, type Svd, svd } from '@polygraft/kernels'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

type Columns = readonly Float64Array[]

const dot = (a: Float64Array, b: Float64Array) => a.reduce((sum, x, i) => sum + x * b[i]!, 0)
const matrix = (rows: number, cols: number, of: (row: number, col: number) => number): Columns =>
  Array.from({ length: cols }, (_, col) => Float64Array.from({ length: rows }, (__, row) => of(row, col)))

/** Largest |<a_i, a_j> - (i == j)| over the vectors of values that are not 0. */
function skew(vectors: Columns, values: Float64Array): number {
  const used = vectors.filter((_, i) => values[i]! > 0)
  const gaps = used.flatMap((a, i) => used.map((b, j) => Math.abs(dot(a, b) - (i === j ? 1 : 0))))
  return Math.max(0, ...gaps)
}

/** Largest |a - u s v^T|. */
function residual(columns: Columns, { u, values, v }: Svd): number {
  const gaps = columns.flatMap((column, col) =>
    [...column].map((x, row) =>
      Math.abs(x - values.reduce((sum, s, k) => sum + u[k]![row]! * s * v[k]![col]!, 0)),
    ),
  )
  return Math.max(0, ...gaps)
}

function check(columns: Columns): Svd {
  const result = svd(columns)
  const { u, values, v } = result
  const rows = columns[0]?.length ?? 0
  const k = Math.min(rows, columns.length)
  expect([u.length, values.length, v.length]).toEqual([k, k, k])
  expect([...values]).toEqual([...values].sort((a, b) => b - a))
  expect(values.every((x) => x >= 0)).toBe(true)
  const largest = values[0] ?? 0
  expect(residual(columns, result)).toBeLessThanOrEqual(1e-13 * largest * (1 + k))
  expect(skew(v, values)).toBeLessThan(1e-12)
  // A value of rounding alone has a left vector of rounding alone, which is still orthogonal to the others.
  expect(skew(u, values)).toBeLessThan(1e-12)
  return result
}

const entries = fc.oneof(
  fc.double({ min: -10, max: 10, noNaN: true }),
  fc.constantFrom(0, 1, -1, 1e-300, 1e-9, 1e9),
)
const matrices = fc
  .record({ rows: fc.integer({ min: 1, max: 9 }), cols: fc.integer({ min: 1, max: 9 }) })
  .chain(({ rows, cols }) =>
    fc
      .array(entries, { minLength: rows * cols, maxLength: rows * cols })
      .map((values) => matrix(rows, cols, (row, col) => values[row * cols + col]!)),
  )

describe('svd', () => {
  it('gives orthonormal vectors and descending values that make the matrix again', () => {
    fc.assert(
      fc.property(matrices, (columns) => void check(columns)),
      { numRuns: 500 },
    )
  })

  it('does so for random matrices of any form', () => {
    for (const [rows, cols] of [
      [60, 60],
      [200, 17],
      [17, 200],
      [1, 50],
    ] as const) {
      const draws = new Float32Array(rows * cols)
      randomValues('normal', 1, rows, 'a', 0, draws)
      check(matrix(rows, cols, (row, col) => draws[row * cols + col]!))
    }
  })

  it('finds known values, small ones beside large ones included', () => {
    const diagonal = [3, 0, 1e-12, 1e8]
    const { values } = check(matrix(4, 4, (row, col) => (row === col ? diagonal[row]! : 0)))
    expect([...values]).toEqual([1e8, 3, 1e-12, 0])
    // Of 1 / (i + j + 1) (Hilbert, 4 x 4), to 15 figures.
    const hilbert = check(matrix(4, 4, (row, col) => 1 / (row + col + 1))).values
    const known = [1.5002142800592426, 0.1691412202214498, 0.006738273605760739, 9.670230402258892e-5]
    for (const [i, value] of known.entries()) expect(hilbert[i]! / value).toBeCloseTo(1, 10)
  })

  it('tells the rank: zero, one, and equal columns', () => {
    expect([...check(matrix(5, 3, () => 0)).values]).toEqual([0, 0, 0])
    const one = check(matrix(6, 4, (row, col) => (row + 1) * (col - 1.5))).values
    expect(one[1]! / one[0]!).toBeLessThan(1e-15)
    const twins = check(matrix(6, 4, (row, col) => Math.cos(row * (1 + (col % 2))))).values
    expect(twins[2]! / twins[0]!).toBeLessThan(1e-15)
    expect(svd([]).values.length).toBe(0)
  })

  it('neither overflows nor vanishes', () => {
    for (const size of [1e-200, 1e200]) {
      const { values } = svd(matrix(3, 3, (row, col) => size * (row === col ? 2 : 1)))
      expect(values[0]! / size).toBeCloseTo(4, 12)
    }
  })

  it('refuses NaN and infinities', () => {
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY])
      expect(() => svd(matrix(2, 2, (row) => (row === 1 ? value : 1)))).toThrow('not-finite')
    expect(() => orthonormalize([Float64Array.of(1, Number.NaN)])).toThrow('not-finite')
  })
})
