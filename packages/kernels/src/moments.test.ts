import { createMoments, pairMoments } from '@polygraft/kernels'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

describe('pairMoments', () => {
  it('sums squares, products and differences', () => {
    const moments = createMoments()
    pairMoments(Float32Array.of(1, 2, -0, 3), Float32Array.of(1, 4, 0, -1), moments)
    expect(moments).toEqual({
      count: 4,
      sumA2: 14,
      sumB2: 18,
      dot: 6,
      sumDelta2: 20,
      changed: 2,
      maxAbsDelta: 4,
      nonFinite: 0,
    })
  })

  it('sets NaN and infinities aside', () => {
    const moments = createMoments()
    pairMoments(
      Float64Array.of(Number.NaN, 1, Number.POSITIVE_INFINITY, 2),
      Float64Array.of(1, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, 2),
      moments,
    )
    expect(moments).toMatchObject({ count: 4, nonFinite: 3, sumA2: 4, changed: 0 })
  })

  it('does not depend on how the pairs are cut', () => {
    const pair = fc.tuple(fc.float(), fc.float())
    fc.assert(
      fc.property(fc.array(pair), fc.nat(), (pairs, at) => {
        const [a, b] = [0, 1].map((k) => Float32Array.from(pairs, (p) => p[k]!)) as [
          Float32Array,
          Float32Array,
        ]
        const cut = pairs.length === 0 ? 0 : at % pairs.length
        const [whole, parts] = [createMoments(), createMoments()]
        pairMoments(a, b, whole)
        pairMoments(a.subarray(0, cut), b.subarray(0, cut), parts)
        pairMoments(a.subarray(cut), b.subarray(cut), parts)
        expect(parts).toEqual(whole)
      }),
    )
  })

  it('accumulates in F64', () => {
    const moments = createMoments()
    pairMoments(new Float32Array(1e5).fill(0.1), new Float32Array(1e5), moments)
    expect(moments.sumA2 / (1e5 * Math.fround(0.1) ** 2)).toBeCloseTo(1, 10)
  })

  it('refuses tiles of different length', () => {
    expect(() => pairMoments(new Float32Array(2), new Float32Array(3), createMoments())).toThrow(/2 elements/)
  })
})
