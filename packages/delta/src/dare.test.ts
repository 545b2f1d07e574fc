import { dareLinear, dareTies, taskArithmetic, ties, trimTargets } from '@polygraft/delta'
import { type Checkpoint, type Expr, operands, pipe } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'
import { maskOf, tinyModel, valuesOf } from '../test/memory.js'

const f32 = Math.fround
const [base, a, b] = [tinyModel(1), tinyModel(2), tinyModel(3)]
const drop = { density: 0.6, seed: 5 }

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
    const merged = pipe(base, dareLinear({ models: [{ model: a }, { model: b, lambda: 0.5 }], ...drop }))
    for (const [name, tensor] of merged.tensors) {
      const [x, y] = [dropped(name, a, 'model 1'), dropped(name, b, 'model 2')]
      const expected = valuesOf(base.tensors.get(name)).map((v, i) => f32(v + f32(x[i]! + f32(0.5 * y[i]!))))
      expect(valuesOf(tensor)).toEqual(expected)
    }
    expect(merged.provenance.recipe[0]).toMatchObject({ op: 'dare_linear', ...drop, lambdas: [1, 0.5] })
  })

  it('gives each tensor of each model a mask of its own, of the same seed', () => {
    const merged = pipe(base, dareLinear({ models: [{ model: a }, { model: b }], ...drop }))
    const all = [...merged.tensors.values()].flatMap(({ expr }) => [...masks(expr)])
    expect(new Set(all.map(({ name }) => name)).size).toBe(2 * base.tensors.size)
    expect(new Set(all.map(({ seed, density }) => `${seed} ${density}`))).toEqual(new Set(['5 0.6']))
  })

  it('is task arithmetic at density 1', () => {
    const models = [{ model: a, lambda: 0.3 }, { model: b }]
    expectEqual(
      pipe(base, dareLinear({ models, density: 1, seed: 0 })),
      pipe(base, taskArithmetic({ models })),
    )
  })
})

describe('dareTies', () => {
  it('elects and averages what is left', () => {
    const merged = pipe(base, dareTies({ models: [a, b], ...drop, lambda: 0.7 }))
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
    expect(merged.provenance.recipe[0]).toMatchObject({ op: 'dare_ties', ...drop, lambda: 0.7 })
  })

  it('is what ties gives of dropped vectors untrimmed, and of all at density 1', () => {
    const whole = { models: [a, b], density: 1, thresholds: new Map() }
    expectEqual(pipe(base, dareTies({ models: [a, b], ...drop })), pipe(base, ties({ ...whole, drop })))
    expectEqual(pipe(base, dareTies({ models: [a, b], density: 1, seed: 0 })), pipe(base, ties(whole)))
  })
})

it('what is dropped is dropped before trimming', () => {
  const targets = trimTargets(base, { models: [a], density: 0.5, drop })
  for (const [key, { tensor }] of targets)
    expect(valuesOf(tensor)).toEqual(dropped(key.split(' of ')[0]!, a, 'model 1'))
})

it('refuses densities, seeds and models that do not fit, all together', () => {
  const wide = tinyModel(2, { intermediate_size: 5 })
  const wrong = { density: 0, seed: 0.5 }
  expect(() => pipe(base, dareLinear({ models: [{ model: wide }], ...wrong }))).toThrow(
    /bad-density[\s\S]*bad-seed[\s\S]*gate_proj/,
  )
  expect(() => pipe(base, dareTies({ models: [a, wide], ...wrong, lambda: Number.NaN }))).toThrow(
    /bad-density[\s\S]*bad-seed[\s\S]*bad-lambda[\s\S]*model 2/,
  )
  expect(() => trimTargets(base, { models: [a], density: 0.5, drop: wrong })).toThrow(
    /bad-density[\s\S]*bad-seed/,
  )
})
