import { arceeFusion, arceeFusionTargets } from '@polygraft/delta'
import { type Checkpoint, pipe } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { measured, tinyModel, vectorOf, wOf } from '../test/memory.js'

const fuse = (base: Checkpoint, model: Checkpoint) => {
  const options = { models: [{ model }] }
  const known = measured((some) => arceeFusionTargets(base, { ...options, measured: some }))
  return pipe(base, arceeFusion({ ...options, measured: known }))
}

/** The definition in plain F64, but for the roundings of I and T; also whether each element is at the threshold within a rounding. */
function fused(base: readonly number[], model: readonly number[], width: number) {
  const { fround } = Math
  const softmax = (row: readonly number[]) => {
    const powers = row.map(Math.exp)
    const sum = powers.reduce((total, x) => total + x, 0)
    return powers.map((x) => x / sum + 1e-8)
  }
  const importance = base.flatMap((_, i) => {
    if (i % width !== 0) return []
    const [p, q] = [model, base].map((all) => softmax(all.slice(i, i + width)))
    const kl = fround(p!.reduce((sum, x, j) => sum + x * Math.log(x / q![j]!), 0))
    return p!.map((_, j) => Math.abs(fround(fround(model[i + j]! - base[i + j]!) * kl)))
  })
  const sorted = [...importance].sort((a, b) => a - b)
  const [q1, q2, q3] = [0.25, 0.5, 0.75].map((q) => sorted[Math.floor(q * (sorted.length - 1))]!)
  const threshold = fround(q2! + 1.5 * (q3! - q1!))
  return importance.map((x, i) => (x >= threshold ? model[i]! : base[i]!))
}

describe('arceeFusion', () => {
  it('takes the model where the importance reaches median + 1.5 interquartile ranges, else the base', () => {
    const value = fc.double({ min: -2, max: 2, noNaN: true }).map(Math.fround)
    const pair = fc.tuple(value, value, fc.boolean()).map(([x, y, same]) => [x, same ? x : y] as const)
    const matrix = fc
      .tuple(fc.integer({ min: 1, max: 7 }), fc.integer({ min: 1, max: 5 }))
      .chain(([width, rows]) =>
        fc
          .array(pair, { minLength: width * rows, maxLength: width * rows })
          .map((pairs) => [pairs, rows, width] as const),
      )
    const property = fc.property(matrix, ([pairs, rows, width]) => {
      const [base, model] = [pairs.map(([x]) => x), pairs.map(([, y]) => y)]
      const result = wOf(fuse(vectorOf(base, [rows, width]), vectorOf(model, [rows, width])))
      expect(result).toEqual(fused(base, model, width))
    })
    fc.assert(property, { numRuns: 300 })
  })

  it('leaves out what hardly matters and takes the outliers, exactly', () => {
    const base = Array.from({ length: 40 }, (_, i) => Math.fround(Math.sin(i)))
    const model = base.map((x, i) => Math.fround(x + (i % 8 === 3 ? 0.7 : 0.01 * Math.cos(i))))
    const result = wOf(fuse(vectorOf(base, [5, 8]), vectorOf(model, [5, 8])))
    expect(result).toEqual(base.map((x, i) => (i % 8 === 3 ? model[i] : x)))
  })

  it('of a model that is the base, and of one element or none', () => {
    const model = tinyModel(1)
    const merged = fuse(model, model)
    expect(merged.config).toBe(model.config)
    expect(merged.provenance.recipe.at(-1)).toMatchObject({ op: 'arcee_fusion' })
    expect(wOf(fuse(vectorOf([2, 3]), vectorOf([2, 3])))).toEqual([2, 3])
    expect(wOf(fuse(vectorOf([2]), vectorOf([5])))).toEqual([5])
    expect(wOf(fuse(vectorOf([], [0, 4]), vectorOf([], [0, 4])))).toEqual([])
  })

  it('shows what is not finite; refuses several models, and what was not measured', () => {
    const [base, model] = [vectorOf([1, 2, 3, 4], [2, 2]), vectorOf([1, Number.NaN, 3, 4], [2, 2])]
    expect(wOf(fuse(base, model))[1]).toBeNaN()
    expect(() => pipe(base, arceeFusion({ models: [{ model }, { model }] }))).toThrow('bad-model-count')
    expect(() => pipe(base, arceeFusion({ models: [{ model }] }))).toThrow('missing-measure')
  })
})
