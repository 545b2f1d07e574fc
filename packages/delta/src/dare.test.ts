import { dareLinear, dareLinearTargets, dareTies, taskArithmetic, ties, tiesTargets } from '@polygraft/delta'
import { type Checkpoint, type Expr, operands, pipe } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'
import { maskOf, measured, tinyModel, valuesOf } from '../test/memory.js'

const f32 = Math.fround
const [base, a, b] = [tinyModel(1), tinyModel(2), tinyModel(3)]
const drop = { density: 0.6, seed: 5 }

const of = (...models: [Checkpoint, number][]) =>
  models.map(([model, weight]) => ({ model, weight, density: drop.density }))

/** m tau / rho of one tensor, by the masks' names. */
function dropped(name: string, model: Checkpoint, label: string): number[] {
  const [before, after] = [base, model].map(({ tensors }) => valuesOf(tensors.get(name)))
  const mask = maskOf({ op: 'mask', ...drop, name: `${name} of ${label}` }, before!.length)
  return before!.map((x, i) => f32(f32(1 / 0.6) * f32(mask[i]! * f32(after![i]! - x))))
}

function* masks(expr: Expr): Generator<Extract<Expr, { op: 'mask' }>> {
  if (expr.op === 'mask') yield expr
  else for (const operand of operands(expr)) yield* masks(operand)
}

function expectEqual(one: Checkpoint, other: Checkpoint): void {
  for (const [name, tensor] of one.tensors)
    expect(valuesOf(tensor)).toEqual(valuesOf(other.tensors.get(name)))
}

describe('dareLinear', () => {
  it('adds what is left of the task vectors, rescaled', () => {
    const merged = pipe(base, dareLinear({ models: of([a, 1], [b, 0.5]), seed: 5 }))
    for (const [name, tensor] of merged.tensors) {
      const [x, y] = [dropped(name, a, 'model 1'), dropped(name, b, 'model 2')]
      const expected = valuesOf(base.tensors.get(name)).map((v, i) => f32(v + f32(x[i]! + f32(0.5 * y[i]!))))
      expect(valuesOf(tensor)).toEqual(expected)
    }
    expect(merged.provenance.recipe[0]).toMatchObject({
      op: 'dare_linear',
      seed: 5,
      densities: [0.6, 0.6],
      weights: [1, 0.5],
    })
  })

  it('gives each tensor of each model a mask of its own, of the same seed', () => {
    const merged = pipe(base, dareLinear({ models: of([a, 1], [b, 1]), seed: 5 }))
    const all = [...merged.tensors.values()].flatMap(({ expr }) => [...masks(expr)])
    expect(new Set(all.map(({ name }) => name)).size).toBe(2 * base.tensors.size)
    expect(new Set(all.map(({ seed, density }) => `${seed} ${density}`))).toEqual(new Set(['5 0.6']))
  })

  it('is task arithmetic at density 1', () => {
    const models = [{ model: a, weight: 0.3 }, { model: b }]
    expectEqual(pipe(base, dareLinear({ models, seed: 0 })), pipe(base, taskArithmetic({ models })))
  })
})

describe('dareTies', () => {
  it('elects and averages what is left', () => {
    const merged = pipe(base, dareTies({ models: of([a, 1], [b, 1]), seed: 5, lambda: 0.7 }))
    for (const [name, tensor] of merged.tensors) {
      const [x, y] = [dropped(name, a, 'model 1'), dropped(name, b, 'model 2')]
      const expected = valuesOf(base.tensors.get(name)).map((v, i) => {
        const sign = Math.sign(f32(x[i]! + y[i]!))
        const agreeing = [x[i]!, y[i]!].filter((value) => value * sign > 0)
        const mean = agreeing.length > 0 ? f32(f32(agreeing.reduce((s, z) => s + z)) / agreeing.length) : 0
        return f32(v + f32(f32(0.7) * mean))
      })
      expect(valuesOf(tensor)).toEqual(expected)
    }
    expect(merged.provenance.recipe[0]).toMatchObject({ op: 'dare_ties', seed: 5, lambda: 0.7 })
  })

  it('is what ties gives of dropped vectors untrimmed, and of all at density 1', () => {
    const models = [{ model: a }, { model: b }]
    const sparse = of([a, 1], [b, 1])
    expectEqual(pipe(base, dareTies({ models: sparse, seed: 5 })), pipe(base, ties({ models, drop })))
    expectEqual(pipe(base, dareTies({ models, seed: 0 })), pipe(base, ties({ models })))
  })
})

it('scales what is left to the L1 norm before, as mergekit does', () => {
  const options = { models: of([a, 1]), seed: 5, rescale: 'l1' as const }
  const measures = measured((measured) => dareLinearTargets(base, { ...options, measured }))
  const merged = pipe(base, dareLinear({ ...options, measured: measures }))
  const norm = (values: readonly number[]) => values.reduce((sum, x) => sum + Math.abs(x), 0)
  for (const [name, tensor] of merged.tensors) {
    const values = valuesOf(base.tensors.get(name))
    const delta = valuesOf(a.tensors.get(name)).map((x, i) => x - values[i]!)
    const mask = maskOf({ op: 'mask', ...drop, name: `${name} of model 1` }, delta.length)
    const left = delta.map((x, i) => x * mask[i]!)
    const by = norm(left) === 0 ? 1 : f32(norm(delta) / norm(left))
    expect(valuesOf(tensor)).toEqual(values.map((v, i) => f32(v + f32(by * left[i]!))))
  }
  expect(() => pipe(base, dareLinear(options))).toThrow(
    /missing-measure[\s\S]*embed_tokens[\s\S]*measureMerge/,
  )
})

it('what is dropped is dropped before trimming', () => {
  const { thresholds } = tiesTargets(base, { models: [{ model: a, density: 0.5 }], drop })
  expect(thresholds.size).toBe(base.tensors.size)
  for (const [key, { tensor }] of thresholds)
    expect(valuesOf(tensor)).toEqual(dropped(key.split(' of ')[0]!, a, 'model 1'))
})

it('refuses densities, seeds and models that do not fit, all together', () => {
  const wide = tinyModel(2, { intermediate_size: 5 })
  const wrong = { density: 0, seed: 0.5 }
  expect(() => pipe(base, dareLinear({ models: [{ model: wide, density: 0 }], seed: 0.5 }))).toThrow(
    /bad-density[\s\S]*bad-seed[\s\S]*gate_proj/,
  )
  expect(() =>
    pipe(
      base,
      dareTies({ models: [{ model: a, density: 0 }, { model: wide }], seed: 0.5, lambda: Number.NaN }),
    ),
  ).toThrow(/bad-density[\s\S]*bad-seed[\s\S]*bad-lambda[\s\S]*model 2/)
  expect(() => tiesTargets(base, { models: [{ model: a }], drop: wrong })).toThrow(
    /bad-density[\s\S]*bad-seed/,
  )
})
