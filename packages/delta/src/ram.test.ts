import { type RamPlusOptions, ram, ramPlus, ramPlusTargets } from '@polygraft/delta'
import { pipe } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { measured, vectorOf, wOf } from '../test/memory.js'

const f32 = Math.fround
const modelsOf = (all: readonly (readonly number[])[]) => all.map((values) => ({ model: vectorOf(values) }))

function plus(base: readonly number[], options: RamPlusOptions): number[] {
  const checkpoint = vectorOf(base)
  const found = measured((m) => ramPlusTargets(checkpoint, { ...options, measured: m }))
  return wOf(pipe(checkpoint, ramPlus({ ...options, measured: found })))
}

/** The definition on plain arrays; `factors` of what each model changes alone. */
function plain(
  base: readonly number[],
  others: readonly (readonly number[])[],
  epsilon: number,
  factors: readonly number[],
): number[] {
  const taus = others.map((values) => values.map((x, i) => f32(x - base[i]!)))
  return base.map((b, i) => {
    const by = [...taus.keys()].filter((t) => Math.abs(taus[t]![i]!) > f32(epsilon))
    const mean = by.reduce((sum, t) => sum + taus[t]![i]!, 0) / Math.max(1, by.length)
    return b + (by.length === 1 ? factors[by[0]!]! : 1) * mean
  })
}

const cases = fc.integer({ min: 1, max: 10 }).chain((n) => {
  const values = fc.array(fc.constantFrom(0, 0, 1, -1, 2, 0.5, 0.01), { minLength: n, maxLength: n })
  return fc.tuple(values, fc.array(values, { minLength: 1, maxLength: 4 }))
})

describe('ram', () => {
  it('averages what several change and keeps what one does', () => {
    const property = fc.property(cases, fc.constantFrom(1e-5, 0, 0.1), ([base, others], epsilon) => {
      const result = wOf(pipe(vectorOf(base), ram({ models: modelsOf(others), epsilon })))
      for (const [i, x] of plain(
        base,
        others,
        epsilon,
        others.map(() => 1),
      ).entries())
        expect(result[i]).toBeCloseTo(x, 5)
    })
    fc.assert(property, { numRuns: 200 })
  })

  it('shows NaN; refuses what is no bound', () => {
    const models = modelsOf([
      [Number.NaN, 1],
      [1, 1],
    ])
    expect(wOf(pipe(vectorOf([0, 0]), ram({ models })))).toEqual([Number.NaN, 1])
    expect(() => pipe(vectorOf([0, 0]), ram({ models, epsilon: -1 }))).toThrow('bad-epsilon')
  })
})

describe('ramPlus', () => {
  it('weighs what one changes alone by how much it shares', () => {
    const property = fc.property(
      cases,
      fc.constantFrom(0.1, 1),
      fc.constantFrom(0.2, 5),
      ([base, others], r, alpha) => {
        const changes = others.map((values) => values.map((x, i) => Math.abs(f32(x - base[i]!)) > 1e-5))
        const count = (i: number) => changes.filter((each) => each[i]).length
        const factors = changes.map((each) => {
          const own = [...each.keys()].filter((i) => each[i])
          const shared = own.filter((i) => count(i) > 1).length
          return 1 + r * Math.min(own.length === shared ? 0 : shared / (own.length - shared), alpha)
        })
        const result = plus(base, { models: modelsOf(others), r, alpha })
        for (const [i, x] of plain(base, others, 1e-5, factors).entries()) expect(result[i]).toBeCloseTo(x, 5)
      },
    )
    fc.assert(property, { numRuns: 200 })
  })

  it('refuses all that is no number of its kind', () => {
    const options = { models: modelsOf([[1]]), r: Number.NaN, alpha: -1 }
    expect(() => ramPlusTargets(vectorOf([0]), options)).toThrow(/bad-r[\s\S]*bad-alpha/)
  })
})
