import {
  dareLinearTargets,
  della,
  dellaLinear,
  dellaLinearTargets,
  dellaTargets,
  taskArithmetic,
  ties,
} from '@polygraft/delta'
import { type Checkpoint, pipe } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { drawsOf, measured, tinyModel, valuesOf, vectorOf, wOf } from '../test/memory.js'

const f32 = Math.fround

/** MAGPRUNE by its definition: rows sorted by magnitude, of equal ones the first largest. */
function prunedOf(
  tau: readonly number[],
  width: number,
  density: number,
  epsilon: number,
  label: string,
): number[] {
  const draw = drawsOf(
    { op: 'random', distribution: 'uniform', scale: 0.5, seed: 7, name: `w of ${label}` },
    tau.length,
  )
  return tau.map((value, i) => {
    const row = Math.floor(i / width) * width
    const order = Array.from({ length: width }, (_, k) => row + k).sort(
      (j, k) => Math.abs(tau[j]!) - Math.abs(tau[k]!) || k - j,
    )
    const rank = order.indexOf(i)
    const p = width > 1 ? density - epsilon + (2 * epsilon * rank) / (width - 1) : density
    return draw[i]! + 0.5 < p ? value / p : 0
  })
}

function expectEqual(one: Checkpoint, other: Checkpoint): void {
  for (const [name, tensor] of one.tensors)
    expect(valuesOf(tensor)).toEqual(valuesOf(other.tensors.get(name)))
}

describe('dellaLinear', () => {
  // Densities by which no probability is a thousandth, of which the draws of these tests are.
  const value = fc.integer({ min: -9, max: 9 })
  const matrix = fc
    .tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 6 }))
    .chain(([rows, width]) =>
      fc.record({
        shape: fc.constant([rows, width]),
        tau: fc.array(value, { minLength: rows * width, maxLength: rows * width }),
      }),
    )

  it('drops by rank within the row, and rescales by the inverse of the probability', () => {
    const property = fc.property(matrix, fc.constantFrom(0.31234, 0.51234), ({ shape, tau }, density) => {
      const base = vectorOf(
        tau.map(() => 0),
        shape,
      )
      const models = [{ model: vectorOf(tau, shape), density, epsilon: 0.2, weight: 0.5 }]
      const merged = wOf(pipe(base, dellaLinear({ models, seed: 7 })))
      const expected = prunedOf(tau, shape[1]!, density, 0.2, 'model 1')
      for (const [i, x] of merged.entries()) expect(x).toBeCloseTo(0.5 * expected[i]!, 4)
      const plain = wOf(pipe(base, dellaLinear({ models, seed: 7, rescale: 'none' })))
      expect(plain).toEqual(tau.map((t, i) => (expected[i] === 0 ? 0 : 0.5 * t)))
    })
    fc.assert(property, { numRuns: 200 })
  })

  it('scales to the L1 norm before where asked, as mergekit does', () => {
    const base = vectorOf([0, 0, 0, 0, 0, 0], [2, 3])
    const tau = [1, -2, 3, 4, 5, -6]
    const options = {
      models: [{ model: vectorOf(tau, [2, 3]), density: 0.61234, epsilon: 0.1 }],
      seed: 7,
      rescale: 'l1' as const,
    }
    const known = measured((m) => dellaLinearTargets(base, { ...options, measured: m }))
    const merged = wOf(pipe(base, dellaLinear({ ...options, measured: known })))
    const left = prunedOf(tau, 3, 0.61234, 0.1, 'model 1').map((x, i) => (x === 0 ? 0 : tau[i]!))
    const norm = (values: readonly number[]) => values.reduce((sum, x) => sum + Math.abs(x), 0)
    expect(norm(left)).toBeGreaterThan(0)
    expect(merged).toEqual(left.map((x) => f32(f32(norm(tau) / norm(left)) * x)))
    expect(() => pipe(base, dellaLinear(options))).toThrow('missing-measure')
  })

  it('is task arithmetic at density 1, and measures nothing unless norms are asked for', () => {
    const [base, a, b] = [tinyModel(1), tinyModel(2), tinyModel(3)]
    const models = [{ model: a, weight: 0.3 }, { model: b }]
    expectEqual(pipe(base, dellaLinear({ models, seed: 0 })), pipe(base, taskArithmetic({ models })))
    const sparse = models.map((each) => ({ ...each, density: 0.5 }))
    expect(dellaTargets(base, { models: sparse, seed: 0 })).toEqual(
      dareLinearTargets(base, { models, seed: 0 }),
    )
  })
})

describe('della', () => {
  it('elects and averages what is left', () => {
    const shape = [2, 3]
    const base = vectorOf([1, 1, 1, 1, 1, 1], shape)
    const taus = [
      [1, -2, 3, 4, 5, -6],
      [-3, -1, 2, 6, -5, 1],
    ]
    const models = taus.map((tau) => ({
      model: vectorOf(
        tau.map((x) => x + 1),
        shape,
      ),
      density: 0.71234,
      epsilon: 0.2,
    }))
    const merged = wOf(pipe(base, della({ models, seed: 7, lambda: 0.5 })))
    const [x, y] = taus.map((tau, t) => prunedOf(tau, 3, 0.71234, 0.2, `model ${t + 1}`))
    for (const [i, value] of merged.entries()) {
      const sign = Math.sign(x![i]! + y![i]!)
      const agreeing = [x![i]!, y![i]!].filter((each) => each * sign > 0)
      const mean = agreeing.length > 0 ? agreeing.reduce((a, b) => a + b) / agreeing.length : 0
      expect(value).toBeCloseTo(1 + 0.5 * mean, 5)
    }
    const recipe = pipe(base, della({ models, seed: 7 })).provenance.recipe[0]
    expect(recipe).toMatchObject({
      op: 'della',
      seed: 7,
      densities: [0.71234, 0.71234],
      epsilons: [0.2, 0.2],
    })
  })

  it('is ties at density 1', () => {
    const [base, a, b] = [tinyModel(1), tinyModel(2), tinyModel(3)]
    const models = [{ model: a }, { model: b }]
    expectEqual(pipe(base, della({ models, seed: 0 })), pipe(base, ties({ models })))
  })
})

it('refuses spreads that leave no probabilities, for each tensor that has one, and seeds', () => {
  const [base, model] = [tinyModel(1), tinyModel(2)]
  const merge = (density: number | ((tensor: string) => number), epsilon: number) => () =>
    pipe(base, dellaLinear({ models: [{ model, density, epsilon }], seed: 0.5 }))
  expect(merge(0.1, 0.1)).toThrow(/bad-epsilon[\s\S]*bad-seed/)
  expect(merge(0.9, 0.1)).toThrow('bad-epsilon')
  expect(merge(0.5, -0.1)).toThrow('bad-epsilon')
  expect(merge((tensor) => (tensor.includes('norm') ? 0.9 : 0.5), 0.2)).toThrow(/bad-epsilon[\s\S]*norm/)
  expect(merge(2, 0.1)).toThrow('bad-density')
  expect(merge(2, 0.1)).not.toThrow('bad-epsilon')
})
