import { nearswap, passthrough } from '@polygraft/delta'
import { pipe } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { tinyModel, valuesOf, vectorOf, wOf } from '../test/memory.js'

describe('nearswap', () => {
  it('is the interpolation by t / |a - b|', () => {
    const value = fc.double({ min: -4, max: 4, noNaN: true }).map(Math.fround)
    const property = fc.property(
      fc.array(fc.tuple(value, value), { minLength: 1 }),
      fc.constantFrom(0, 1e-3, 0.5, 9),
      (pairs, t) => {
        const [a, b] = [pairs.map(([x]) => x), pairs.map(([, y]) => y)]
        const result = wOf(pipe(vectorOf(a), nearswap({ models: [{ model: vectorOf(b) }], t })))
        for (const [i, [x, y]] of pairs.entries()) {
          const w = x === y ? 1 : Math.min(1, t / Math.abs(x - y))
          expect(result[i]).toBeCloseTo((1 - w) * x + w * y, 5)
          if (Math.abs(Math.fround(y - x)) <= t) expect(result[i]).toBe(y)
        }
      },
    )
    fc.assert(property, { numRuns: 200 })
  })

  it('takes t by tensor; shows NaN; refuses what is no distance', () => {
    const models = [{ model: vectorOf([1, Number.NaN, 5]) }]
    expect(wOf(pipe(vectorOf([0, 0, Number.NaN]), nearswap({ models, t: () => 0.5 })))).toEqual([
      0.5,
      Number.NaN,
      Number.NaN,
    ])
    expect(() => pipe(vectorOf([0, 0, 0]), nearswap({ models, t: -1 }))).toThrow('bad-t')
  })
})

describe('passthrough', () => {
  it('passes one model on as it is stored, or scaled', () => {
    const [target, model] = [tinyModel(1), tinyModel(2)]
    const passed = pipe(target, passthrough({ models: [{ model }] }))
    for (const [name, { expr }] of passed.tensors) expect(expr).toEqual(model.tensors.get(name)!.expr)
    expect(passed.config).toBe(target.config)
    const scale = (name: string) => (name === 'model.norm.weight' ? 0.5 : 1)
    const scaled = pipe(target, passthrough({ models: [{ model, scale }] }))
    const [norm, half] = [model, scaled].map(({ tensors }) => valuesOf(tensors.get('model.norm.weight')))
    expect(half).toEqual(norm!.map((x) => x / 2))
    expect(() => pipe(target, passthrough({ models: [{ model }, { model, scale: Number.NaN }] }))).toThrow(
      /bad-model-count[\s\S]*bad-lambda/,
    )
  })
})
