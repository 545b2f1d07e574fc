import { rankMagnitudes } from '@polygraft/kernels'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

/** The definition, by comparing. */
function ranksOf(values: ArrayLike<number>): number[] {
  const size = (i: number) =>
    Number.isNaN(values[i]!) ? Number.MAX_VALUE : Math.min(Math.abs(values[i]!), 1e300)
  const isNaNAt = (i: number) => Number.isNaN(values[i]!)
  const order = Array.from(values, (_, i) => i).sort(
    (i, j) => Number(isNaNAt(i)) - Number(isNaNAt(j)) || size(i) - size(j) || j - i,
  )
  const ranks = order.map(() => 0)
  for (const [rank, i] of order.entries()) ranks[i] = rank
  return ranks
}

describe('ranks of magnitudes', () => {
  const number = fc.oneof(
    fc.float(),
    fc.constantFrom(
      0,
      -0,
      1,
      -1,
      2,
      Number.NaN,
      Number.POSITIVE_INFINITY,
      Number.NEGATIVE_INFINITY,
      2 ** -149,
    ),
  )
  it.each([
    ['F32', Float32Array],
    ['F64', Float64Array],
  ])('are those of sorting, in %s: ties, zeros, infinities and NaN too', (_, Values) => {
    const property = fc.property(fc.array(number, { maxLength: 60 }), (list) => {
      const values = Values.from(list)
      const out = new Values(list.length)
      rankMagnitudes(values, out)
      expect([...out]).toEqual(ranksOf(values))
    })
    fc.assert(property, { numRuns: 300 })
  })

  it('tell apart F64 numbers that F32 does not', () => {
    const out = new Float64Array(4)
    rankMagnitudes(Float64Array.of(1 + 2 ** -50, -1, 1 + 2 ** -51, 1 - 2 ** -40), out)
    expect([...out]).toEqual([3, 1, 2, 0])
  })

  it('need no more than the part of the scratch that they fill', () => {
    const values = Float32Array.of(3, -1, 2)
    const scratch = {
      order: new Uint32Array(10),
      next: new Uint32Array(10),
      counts: new Uint32Array(2048),
    }
    const out = new Float32Array(3)
    rankMagnitudes(values, out, scratch)
    expect([...out]).toEqual([2, 0, 1])
  })
})
