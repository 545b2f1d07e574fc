import { type SceOptions, sce, sceTargets } from '@polygraft/delta'
import { pipe } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { measured, vectorOf, wOf } from '../test/memory.js'

const f32 = Math.fround

function run(base: readonly number[], options: SceOptions): number[] {
  const checkpoint = vectorOf(base)
  return wOf(
    pipe(
      checkpoint,
      sce({ ...options, measured: measured((m) => sceTargets(checkpoint, { ...options, measured: m })) }),
    ),
  )
}

/** The three steps on plain arrays, in F64. */
function plain(base: readonly number[], others: readonly (readonly number[])[], share: number): number[] {
  const taus = others.map((values) => values.map((x, i) => x - base[i]!))
  const variance = base.map((_, i) => {
    const mean = taus.reduce((sum, tau) => sum + tau[i]!, 0) / taus.length
    return taus.reduce((sum, tau) => sum + (tau[i]! - mean) ** 2, 0) / taus.length
  })
  const ranked = [...base.keys()].sort((i, j) => variance[j]! - variance[i]! || i - j)
  const count = Math.floor(variance.filter((x) => x > 0).length * share)
  const chosen = new Set(share === 1 ? ranked : ranked.slice(0, count))
  const selected = taus.map((tau) => tau.map((x, i) => (chosen.has(i) ? x : 0)))
  const energies = selected.map((tau) => tau.reduce((sum, x) => sum + x * x, 0))
  const total = energies.reduce((a, b) => a + b)
  const eta = energies.map((energy) => (total === 0 ? 1 / taus.length : energy / total))
  return base.map((b, i) => {
    const sign = Math.sign(selected.reduce((sum, tau) => sum + tau[i]!, 0))
    const left = [...eta.keys()].filter((t) => sign !== 0 && Math.sign(selected[t]![i]!) === sign)
    const weight = left.reduce((sum, t) => sum + eta[t]!, 0)
    return b + (weight > 0 ? left.reduce((sum, t) => sum + eta[t]! * selected[t]![i]!, 0) / weight : 0)
  })
}

describe('sce', () => {
  it('selects by variance, weighs by energy, erases the minority', () => {
    // Eighths of small whole numbers: everything up to the squares is exact in F32.
    const value = fc.integer({ min: -16, max: 16 }).map((x) => x / 8)
    const property = fc.property(
      fc.integer({ min: 1, max: 10 }).chain((n) => {
        const values = fc.array(value, { minLength: n, maxLength: n })
        return fc.tuple(values, fc.array(values, { minLength: 1, maxLength: 2 }))
      }),
      fc.constantFrom(1, 0.7, 0.5, 0.2),
      ([base, others], selectTopk) => {
        const result = run(base, {
          models: others.map((values) => ({ model: vectorOf(values) })),
          selectTopk,
        })
        for (const [i, x] of plain(base, others, selectTopk).entries()) expect(result[i]).toBeCloseTo(x, 5)
      },
    )
    fc.assert(property, { numRuns: 300 })
  })

  it('is the one task vector of one model, and the base without any change', () => {
    expect(run([1, 2], { models: [{ model: vectorOf([3, 1]) }] })).toEqual([3, 1])
    expect(
      run([1, 2], { models: [{ model: vectorOf([1, 2]) }, { model: vectorOf([1, 2]) }], selectTopk: 0.5 }),
    ).toEqual([1, 2])
  })

  it("weighs alike below mergekit's bound, and takes a sum of 0 for positive, where asked", () => {
    const models = [
      [0.5, 0.001],
      [-0.5, 0.003],
    ].map((values) => ({ model: vectorOf(values) }))
    expect(run([0, 0], { models, tie: 'positive' })[0]).toBe(0.5)
    expect(run([0, 0], { models })[0]).toBe(0)
    const small = [
      [1e-4, 2e-4],
      [3e-4, 4e-4],
    ].map((values) => ({ model: vectorOf(values) }))
    expect(run([0, 0], { models: small, leastEnergy: 1e-6 })[0]).toBeCloseTo(2e-4, 9)
    expect(run([0, 0], { models: small })[0]).toBeCloseTo((5 * 1e-4 + 25 * 3e-4) / 30, 9)
  })

  it('shows NaN, and refuses a share that is none', () => {
    const models = [
      [Number.NaN, 1],
      [1, 2],
    ].map((values) => ({ model: vectorOf(values) }))
    expect(run([0, f32(0.5)], { models, selectTopk: 0.5 })[0]).toBeNaN()
    expect(() => run([0, 0], { models, selectTopk: 0 })).toThrow('bad-density')
  })
})
