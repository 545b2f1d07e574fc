import { slidingWindows } from '@polygraft/evaluate'
import fc from 'fast-check'
import { expect, it } from 'vitest'

it('scores every token but the first once, with enough before it', () => {
  const sizes = fc
    .tuple(fc.nat(500), fc.integer({ min: 2, max: 64 }))
    .chain(([length, context]) =>
      fc.tuple(fc.constant(length), fc.constant(context), fc.integer({ min: 1, max: context - 1 })),
    )
  fc.assert(
    fc.property(sizes, ([length, context, stride]) => {
      const scored = slidingWindows(length, context, stride).flatMap(({ begin, score, end }) => {
        expect(end - begin).toBeLessThanOrEqual(context)
        expect(begin).toBeGreaterThanOrEqual(0)
        return Array.from({ length: end - score }, (_, i) => {
          const before = score + i - begin
          expect(before).toBeGreaterThanOrEqual(Math.min(score + i, context - stride))
          return score + i
        })
      })
      expect(scored).toEqual(Array.from({ length: Math.max(0, length - 1) }, (_, i) => i + 1))
    }),
  )
})
