import { randomValues } from '@polygraft/kernels'
import {
  addRouterSamples,
  alikeExperts,
  createRouterSamples,
  gateTopKRenormalized,
  languageRouter,
  type RouterSamples,
} from '@polygraft/routing'
import { describe, expect, it } from 'vitest'

const H = 8
/** Where the classes of text lie: apart along dimensions 0 to 2, with most of the noise along dimension 7. */
const MEANS = [
  [3, 0, 0],
  [0, 3, 0],
  [0, 0, 3],
]

function draw(tokens: number, seed: number): Float32Array[] {
  return MEANS.map((mean, e) => {
    const rows = new Float32Array(tokens * H)
    randomValues('normal', 1, seed, `class ${e}`, 0, rows)
    for (let t = 0; t < tokens; t++) {
      // Noise that is shared by dimensions 0 and 7: LDA can take it out, means cannot.
      rows[t * H]! += 4 * rows[t * H + 7]!
      for (const [h, value] of mean.entries()) rows[t * H + h]! += value
    }
    return rows
  })
}

function samplesOf(rows: readonly Float32Array[]): RouterSamples {
  const samples = createRouterSamples(MEANS.length, H, true)
  for (const [e, each] of rows.entries()) addRouterSamples(samples, e, each)
  return samples
}

/** Share of held-out tokens whose first expert is their class's own. */
function rightShare(router: Float32Array): number {
  let [right, total] = [0, 0]
  for (const [e, rows] of draw(400, 2).entries())
    for (let t = 0; t * H < rows.length; t++) {
      const logits = MEANS.map((_, other) =>
        rows.subarray(t * H, (t + 1) * H).reduce((sum, x, h) => sum + x * router[other * H + h]!, 0),
      )
      if (gateTopKRenormalized(logits, 1).experts[0] === e) right++
      total++
    }
  return right / total
}

describe('languageRouter', () => {
  const samples = samplesOf(draw(2000, 1))

  it('by means: rows of one length, own expert ahead by `lead` on average', () => {
    const router = languageRouter(samples, { kind: 'means', lead: 3 })
    const lengths = MEANS.map((_, e) => Math.hypot(...router.subarray(e * H, (e + 1) * H)))
    expect(Math.max(...lengths) - Math.min(...lengths)).toBeLessThan(1e-6)
    const mean = (e: number, h: number) => samples.sums[e * H + h]! / samples.tokens[e]!
    const lead = (e: number) => {
      let sum = 0
      for (let h = 0; h < H; h++)
        sum += router[e * H + h]! * (mean(e, h) - (mean(0, h) + mean(1, h) + mean(2, h)) / 3)
      return sum
    }
    expect((lead(0) + lead(1) + lead(2)) / 3).toBeCloseTo(3, 5)
  })

  it('by LDA: tells apart what noise common to two dimensions hides from the means', () => {
    const byMeans = rightShare(languageRouter(samples, { kind: 'means' }))
    const byLda = rightShare(languageRouter(samples, { kind: 'lda', shrinkage: 0.001 }))
    expect(byLda).toBeGreaterThan(0.9)
    expect(byLda).toBeGreaterThan(byMeans + 0.1)
  })

  it('is the same for tokens in parts', () => {
    const whole = draw(10, 3)
    const parts = createRouterSamples(MEANS.length, H, true)
    for (const [e, rows] of whole.entries()) {
      addRouterSamples(parts, e, rows.subarray(0, 4 * H))
      addRouterSamples(parts, e, rows.subarray(4 * H))
    }
    expect(parts).toEqual(samplesOf(whole))
  })

  it('refuses classes without text, or all alike', () => {
    const empty = createRouterSamples(2, H, false)
    expect(() => languageRouter(empty, { kind: 'means' })).toThrow('none for expert 0, expert 1')
    for (const e of [0, 1]) addRouterSamples(empty, e, new Float32Array(H).fill(1))
    expect(() => languageRouter(empty, { kind: 'means' })).toThrow('no router can tell them apart')
    expect(() => languageRouter(empty, { kind: 'lda' })).toThrow('were not taken')
  })
})

it('alikeExperts names rows of one direction', () => {
  expect(alikeExperts([1, 0, 0, 1, 5, 0.1, 0, 0, 0, 0], 5, 2)).toEqual([
    [0, 2],
    [0, 3],
    [0, 4],
    [1, 3],
    [1, 4],
    [2, 3],
    [2, 4],
    [3, 4],
  ])
  expect(alikeExperts([1, 0, 0, 1, -1, 0], 3, 2)).toEqual([])
})
