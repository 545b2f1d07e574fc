import {
  type BreadcrumbsTiesOptions,
  breadcrumbs,
  breadcrumbsTargets,
  breadcrumbsTies,
  breadcrumbsTiesTargets,
  taskArithmetic,
} from '@polygraft/delta'
import { pipe } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { measured, vectorOf, wOf } from '../test/memory.js'

const f32 = Math.fround

function run(base: readonly number[], options: BreadcrumbsTiesOptions, elect = false): number[] {
  const [op, targets] = elect ? [breadcrumbsTies, breadcrumbsTiesTargets] : [breadcrumbs, breadcrumbsTargets]
  const checkpoint = vectorOf(base)
  return wOf(
    pipe(
      checkpoint,
      op({ ...options, measured: measured((m) => targets(checkpoint, { ...options, measured: m })) }),
    ),
  )
}

/** What is left of a task vector: by sorting, without the largest and the smallest. */
function plain(tau: readonly number[], density: number, gamma: number): number[] {
  const ranked = [...tau.keys()].sort((i, j) => Math.abs(tau[j]!) - Math.abs(tau[i]!) || i - j)
  const keep = Math.max(1, Math.floor(density * tau.length))
  const top = Math.min(Math.floor(gamma * tau.length), tau.length - keep)
  const kept = new Set(density === 1 ? ranked : ranked.slice(top, top + keep))
  return tau.map((x, i) => (kept.has(i) ? x : 0))
}

describe('breadcrumbs', () => {
  it('keeps what lies between the outliers and the smallest', () => {
    const value = fc.oneof(
      fc.constantFrom(0, 1, -1, 2, -2),
      fc.double({ min: -4, max: 4, noNaN: true }).map(f32),
    )
    const property = fc.property(
      fc.integer({ min: 1, max: 14 }).chain((n) => {
        const values = fc.array(value, { minLength: n, maxLength: n })
        return fc.tuple(values, fc.array(values, { minLength: 1, maxLength: 3 }))
      }),
      fc.double({ min: 0.01, max: 1, noNaN: true }),
      fc.double({ min: 0, max: 0.99, noNaN: true }),
      ([base, others], density, gamma) => {
        const taus = others.map((values) =>
          plain(
            values.map((x, i) => f32(x - base[i]!)),
            density,
            gamma,
          ),
        )
        const sum = (i: number) => taus.map((tau) => tau[i]!).reduce((a, b) => f32(a + b))
        const models = others.map((values) => ({ model: vectorOf(values), density, gamma }))
        const result = run(base, { models })
        expect(result.map((x) => x + 0)).toEqual(base.map((x, i) => f32(x + sum(i)) + 0)) // -0 is 0
      },
    )
    fc.assert(property, { numRuns: 300 })
  })

  it('never drops all of a small tensor', () => {
    expect(run([0], { models: [{ model: vectorOf([3]), density: 0.5 }] })).toEqual([3])
    expect(run([0, 0, 0], { models: [{ model: vectorOf([1, 2, 3]), density: 0.1, gamma: 0.5 }] })).toEqual([
      0, 2, 0,
    ])
  })

  it('at density 1 is task arithmetic; scales to the L1 norm where asked; shows NaN', () => {
    const model = vectorOf([1, 5, Number.NaN])
    const options = { models: [{ model, density: 1, weight: 0.3 }] }
    expect(run([0, 1, 2], options)).toEqual(wOf(pipe(vectorOf([0, 1, 2]), taskArithmetic(options))))
    const scaled = { models: [{ model: vectorOf([1, 2, 3, 4]), density: 0.5, gamma: 0.25 }] }
    expect(run([0, 0, 0, 0], { ...scaled, rescale: 'l1' })).toEqual([0, 4, 6, 0])
    const model4 = vectorOf([1, 2, Number.NaN, 4])
    expect(run([0, 0, 0, 0], { models: [{ model: model4, density: 0.5 }] })[2]).toBeNaN()
  })

  it('elects signs, and adds up as mergekit does where asked', () => {
    const models = [
      { model: vectorOf([9, 2, 1, 0]), density: 0.5, gamma: 0.25 },
      { model: vectorOf([1, 2, -3, 9]), density: 0.5, gamma: 0.25 },
    ]
    expect(run([0, 0, 0, 0], { models }, true)).toEqual([0, 2, -3, 0])
    expect(run([0, 0, 0, 0], { models, normalize: false, lambda: 2 }, true)).toEqual([0, 8, -6, 0])
  })

  it('refuses shares that are none', () => {
    const models = [
      { model: vectorOf([1]), density: 0, gamma: 1 },
      { model: vectorOf([1]), gamma: -0.1 },
    ]
    expect(() => pipe(vectorOf([1]), breadcrumbs({ models }))).toThrow(
      /bad-density[\s\S]*bad-gamma[\s\S]*-0.1/,
    )
  })
})
