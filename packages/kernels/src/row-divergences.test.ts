import { rowDivergences } from '@polygraft/kernels'
import fc from 'fast-check'
import { expect, it } from 'vitest'

const softmax = (row: readonly number[]) => {
  const powers = row.map((x) => Math.exp(x))
  const sum = powers.reduce((a, b) => a + b, 0)
  return powers.map((power) => power / sum + 1e-8)
}

const klOf = (a: readonly number[], b: readonly number[]) => {
  const [p, q] = [softmax(a), softmax(b)]
  return p.reduce((sum, x, j) => sum + x * Math.log(x / q[j]!), 0)
}

it('is the divergence of each row, whatever the pieces', () => {
  const value = fc.double({ min: -8, max: 8, noNaN: true })
  const matrices = fc.integer({ min: 1, max: 6 }).chain((width) =>
    fc.record({
      width: fc.constant(width),
      rows: fc.array(fc.array(fc.tuple(value, value), { minLength: width, maxLength: width }), {
        minLength: 1,
        maxLength: 5,
      }),
      piece: fc.integer({ min: 1, max: 9 }),
    }),
  )
  const property = fc.property(matrices, ({ width, rows, piece }) => {
    const [a, b] = [0, 1].map((side) => Float64Array.from(rows.flat(), (pair) => pair[side]!))
    const divergences = rowDivergences(width)
    for (let at = 0; at < a!.length; at += piece)
      divergences.add(a!.subarray(at, at + piece), b!.subarray(at, at + piece))
    const found = divergences.result()
    expect(found.length).toBe(rows.length)
    for (const [r, row] of rows.entries()) {
      const expected = klOf(
        row.map(([x]) => x),
        row.map(([, y]) => y),
      )
      expect(found[r]).toBeGreaterThanOrEqual(0)
      expect(Math.abs(found[r]! - expected)).toBeLessThan(1e-12 * Math.max(1, expected))
    }
  })
  fc.assert(property, { numRuns: 200 })
})

it('is 0 for equal rows and for rows that differ by a constant, holds far apart, and is NaN beside what is not finite', () => {
  const rows = rowDivergences(2)
  rows.add(
    Float32Array.of(1, 2, 1, 2, 1e30, -1e30, 1, Number.NaN, Number.POSITIVE_INFINITY, 0),
    Float32Array.of(1, 2, 3, 4, -1e30, 1e30, 1, 1, 0, 0),
  )
  const [same, moved, far, ...others] = rows.result()
  expect([same, moved]).toEqual([0, 0])
  expect(far).toBeCloseTo(Math.log(1e8), 5)
  expect(others).toEqual([Number.NaN, Number.NaN])
})
