import {
  addLoad,
  createLoad,
  gateTopKRenormalized,
  routingDrift,
  sumLoads,
  summarizeLoad,
} from '@polygraft/routing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

const trace = (probabilities: number[], experts: number[]) => ({
  probabilities: new Float32Array(probabilities),
  experts: new Uint32Array(experts),
})

describe('load', () => {
  it('counts choices and probabilities', () => {
    const load = addLoad(createLoad(2), trace([0.75, 0.25, 0.5, 0.5], [0, 0]))
    expect(summarizeLoad(addLoad(load, trace([0.25, 0.75, 0, 1], [1, 1])))).toEqual({
      tokens: 4,
      share: [0.5, 0.5],
      probability: [0.375, 0.625],
      entropy: 1,
      expert0: 0.5,
    })
    expect(load.tokens).toBe(2)
  })

  it('has entropy 0 when one expert takes all, and says nothing of no tokens', () => {
    expect(summarizeLoad(addLoad(createLoad(3), trace([1, 0, 0], [0]))).entropy).toBe(0)
    expect(summarizeLoad(createLoad(3))).toMatchObject({ tokens: 0, share: [0, 0, 0], entropy: Number.NaN })
  })

  it('sums: in parts as in one', () => {
    const routed = fc.array(
      fc.array(fc.double({ min: -4, max: 4, noNaN: true }), { minLength: 4, maxLength: 4 }),
    )
    fc.assert(
      fc.property(routed, routed, (a, b) => {
        const traceOf = (rows: number[][]) => {
          const chosen = rows.map((logits) => gateTopKRenormalized(logits, 2).experts)
          return trace(
            rows.flatMap(() => [0.25, 0.25, 0.25, 0.25]),
            chosen.flat(),
          )
        }
        const whole = addLoad(createLoad(4), traceOf([...a, ...b]))
        const parts = sumLoads([a, b].map((rows) => addLoad(createLoad(4), traceOf(rows))))
        expect(parts).toEqual(whole)
        const { share, expert0 } = summarizeLoad(whole)
        if (a.length + b.length > 0) expect(share.reduce((x, y) => x + y)).toBeCloseTo(1)
        expect(expert0).toBeGreaterThanOrEqual(0)
        expect(expert0).toBeLessThanOrEqual(1)
      }),
    )
  })
})

describe('routingDrift', () => {
  it.each([
    ['the same', [0, 1, 2, 1], [0, 1, 2, 1], 0],
    ['another order', [0, 1, 2, 1], [1, 0, 1, 2], 0],
    ['one of two tokens', [0, 1, 2, 1], [0, 1, 2, 3], 0.5],
    ['no tokens', [], [], 0],
  ])('%s', (_, before, after, drift) => {
    expect(routingDrift(new Uint32Array(before), new Uint32Array(after), 2)).toBe(drift)
  })
})
