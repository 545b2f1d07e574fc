import { countTargets, type TiesOptions, taskArithmetic, ties, tiesTargets } from '@polygraft/delta'
import { type Checkpoint, pipe } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { checkpointOf, measured, tinyModel, valuesOf } from '../test/memory.js'

const f32 = Math.fround
const modelOf = (values: readonly number[]) => checkpointOf({ w: { shape: [values.length], values } })
const merged = (checkpoint: Checkpoint) => valuesOf(checkpoint.tensors.get('w'))

function run(base: Checkpoint, models: Checkpoint[], density: number, lambda = 1): number[] {
  const options = { models: models.map((model) => ({ model, density })), lambda }
  return merged(pipe(base, ties({ ...options, measured: measuredOf(base, options) })))
}

function measuredOf(base: Checkpoint, options: TiesOptions) {
  return measured((measured) => tiesTargets(base, { ...options, measured }))
}

/** Algorithm 1 of the paper, written down again for plain arrays. */
function plainTies(base: number[], models: number[][], density: number, lambda: number): number[] {
  const trimmed = models.map((model) => {
    const tau = model.map((x, i) => f32(x - base[i]!))
    const order = tau.map((x, i) => ({ size: Math.abs(x), i })).sort((a, b) => b.size - a.size || a.i - b.i)
    const kept = new Set(order.slice(0, Math.max(1, Math.floor(density * tau.length))).map(({ i }) => i))
    return tau.map((x, i) => (kept.has(i) ? x : 0))
  })
  return base.map((b, i) => {
    const values = trimmed.map((tau) => tau[i]!)
    const gamma = Math.sign(values.reduce((sum, x) => f32(sum + x), 0))
    const agreeing = values.filter((x) => Math.sign(x) === gamma)
    const total = agreeing.reduce((sum, x) => f32(sum + x), 0)
    const mean = gamma === 0 ? 0 : f32(total / agreeing.length)
    return f32(b + f32(f32(lambda) * mean))
  })
}

describe('ties', () => {
  it('is the algorithm of the paper, with ties in magnitude and in sign, and zeros', () => {
    const value = fc.oneof(
      fc.constantFrom(0, 1, -1, 2, -2, 0.5),
      fc.double({ min: -4, max: 4, noNaN: true }).map(f32),
    )
    const property = fc.property(
      fc.integer({ min: 1, max: 12 }).chain((n) => {
        const values = fc.array(value, { minLength: n, maxLength: n })
        return fc.tuple(values, fc.array(values, { minLength: 1, maxLength: 8 }))
      }),
      fc.double({ min: 0.01, max: 1, noNaN: true }),
      fc.constantFrom(1, 0.4, -1),
      ([base, models], density, lambda) => {
        const expected = plainTies(base, models, density, lambda)
        const result = run(modelOf(base), models.map(modelOf), density, lambda)
        expect(result.map((x) => x + 0)).toEqual(expected.map((x) => x + 0)) // -0 is 0
      },
    )
    fc.assert(property, { numRuns: 300 })
  })

  it('elects by mass, not by votes, and averages those who agree', () => {
    const base = modelOf([0, 0, 0, 0])
    const models = [modelOf([1, 1, 2, 0]), modelOf([3, 1, -2, 0]), modelOf([-3, -5, 0, -1])]
    expect(run(base, models, 1)).toEqual([2, -5, 0, -1])
  })

  it('keeps the largest of each task vector, the first of equal ones, at least one', () => {
    const base = modelOf([1, 1, 1, 1])
    expect(run(base, [modelOf([2, 0, 4, 2])], 0.5)).toEqual([2, 1, 4, 1])
    expect(run(base, [modelOf([2, 0, 4, 2])], 0.01)).toEqual([1, 1, 4, 1])
    expect(run(base, [modelOf([2, 0, 4, 2])], 0.01, 2)).toEqual([1, 1, 7, 1])
  })

  it('at density 1 measures nothing, and with one model is task arithmetic, bit for bit', () => {
    const [base, model] = [tinyModel(1), tinyModel(2)]
    const options = { models: [{ model }], lambda: 0.3 }
    expect(countTargets(tiesTargets(base, options))).toBe(0)
    const one = pipe(base, ties(options))
    const other = pipe(base, taskArithmetic(options))
    for (const [name, tensor] of one.tensors)
      expect(valuesOf(tensor)).toEqual(valuesOf(other.tensors.get(name)))
  })

  it('weighs, with densities of their own; mergekit takes a sum of 0 for positive, and may not divide', () => {
    const base = modelOf([0, 0, 0, 0])
    const models = [
      { model: modelOf([1, 1, 2, 4]), weight: 2, density: 0.5 },
      { model: modelOf([3, -4, -2, -8]), weight: (name: string) => (name === 'w' ? 1 : 0) },
    ]
    const merge = (more: Partial<TiesOptions>) => {
      const options = { models, ...more }
      return merged(pipe(base, ties({ ...options, measured: measuredOf(base, options) })))
    }
    // Weighted and trimmed: 0 0 4 8 and 3 -4 -2 -8.
    expect(merge({})).toEqual([3, -4, 2, 0])
    expect(merge({ tie: 'positive' })).toEqual([3, -4, 2, 4])
    expect(merge({ normalize: false })).toEqual([3, -4, 4, 0])
    expect(merge({ consensus: 'count' })).toEqual([3, -4, 0, 0])
    const by = f32(8 / 6)
    expect(merge({ rescale: 'l1', normalize: false })).toEqual([
      3,
      -4,
      f32(2 * f32(by * 2)),
      f32(2 * f32(by * 4)),
    ])
  })

  it('shows NaN and infinities', () => {
    const [nan, inf] = [Number.NaN, Number.POSITIVE_INFINITY]
    const models = [modelOf([nan, inf, inf, 1]), modelOf([1, 1, -inf, 2])]
    const options = { models: models.map((model) => ({ model })) }
    expect(merged(pipe(modelOf([0, 0, 0, 0]), ties(options)))).toEqual([nan, inf, nan, 1.5])
  })

  it('records itself; asks for thresholds in the dtype of the arithmetic', () => {
    const [base, model] = [tinyModel(1), tinyModel(2)]
    const options = { models: [{ model, density: 0.2 }] }
    const { thresholds } = tiesTargets(base, options)
    const { tensor, keep } = thresholds.get('model.embed_tokens.weight of model 1')!
    expect([tensor.dtype, tensor.shape, keep]).toEqual(['F32', [6, 4], 4])
    const { provenance } = pipe(base, ties({ ...options, measured: measuredOf(base, options) }))
    expect(provenance.recipe[0]).toMatchObject({ op: 'ties', densities: [0.2], lambda: 1 })
  })

  it('refuses densities out of range, missing thresholds, and models that do not fit, all of them', () => {
    const [base, model] = [tinyModel(1), tinyModel(2)]
    const refused = (density: number) => () => pipe(base, ties({ models: [{ model, density }] }))
    for (const density of [0, -1, 1.1, Number.NaN]) expect(refused(density)).toThrow('bad-density')
    expect(refused(0.5)).toThrow(/missing-measure[\s\S]*embed_tokens[\s\S]*lm_head/)
    const wide = tinyModel(2, { intermediate_size: 5 })
    expect(() => tiesTargets(base, { models: [{ model, density: 0 }, { model: wide }] })).toThrow(
      /bad-density[\s\S]*model 2[\s\S]*gate_proj[\s\S]*down_proj/,
    )
  })
})
