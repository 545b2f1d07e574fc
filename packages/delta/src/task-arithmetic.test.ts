import { applyDelta, createDelta, taskArithmetic } from '@polygraft/delta'
import { pipe } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'
import { tinyModel, valuesOf } from '../test/memory.js'

describe('taskArithmetic', () => {
  const [base, a, b] = [tinyModel(1), tinyModel(2), tinyModel(3)]

  it('adds the scaled task vectors to the base', () => {
    const merged = pipe(base, taskArithmetic({ models: [{ model: a }, { model: b, weight: 0.5 }] }))
    for (const [name, tensor] of merged.tensors) {
      const [x, y, z] = [base, a, b].map(({ tensors }) => valuesOf(tensors.get(name)))
      expect(valuesOf(tensor)).toEqual(x!.map((v, i) => v + (y![i]! - v) + 0.5 * (z![i]! - v)))
    }
    const [idBase, idA, idB] = [base, a, b].map(({ sources }) => [...sources.keys()][0])
    expect(merged.provenance.recipe).toEqual([
      {
        op: 'task_arithmetic',
        inputs: { base: idBase, models: [idA, idB] },
        weights: [1, 0.5],
        lambda: 1,
        normalize: false,
      },
    ])
  })

  it('with one model is that delta applied', () => {
    const merged = pipe(base, taskArithmetic({ models: [{ model: a }], lambda: 0.25 }))
    const applied = pipe(base, applyDelta({ delta: createDelta({ base, post: a }), lambda: 0.25 }))
    for (const [name, tensor] of merged.tensors)
      expect(valuesOf(tensor)).toEqual(valuesOf(applied.tensors.get(name)))
  })

  it('divides by the sum of the weights where asked, and takes factors by tensor', () => {
    const models = [{ model: a, weight: 3 }, { model: b }]
    const lambda = (name: string) => (name === 'model.norm.weight' ? 2 : 0)
    const merged = pipe(base, taskArithmetic({ models, lambda, normalize: true }))
    for (const [name, tensor] of merged.tensors) {
      const [x, y, z] = [base, a, b].map(({ tensors }) => valuesOf(tensors.get(name)))
      const sum = x!.map((v, i) => 0.75 * (y![i]! - v) + 0.25 * (z![i]! - v))
      expect(valuesOf(tensor)).toEqual(x!.map((v, i) => v + lambda(name) * sum[i]!))
    }
    const opposed = [{ model: a, weight: -1 }, { model: b }]
    expect(() => pipe(base, taskArithmetic({ models: opposed, normalize: true }))).toThrow('zero-weights')
    expect(() => pipe(base, taskArithmetic({ models: opposed }))).not.toThrow()
  })

  it('refuses models of other families', () => {
    const qwen = tinyModel(2, { model_type: 'qwen3' })
    expect(() =>
      pipe(base, taskArithmetic({ models: [{ model: qwen }, { model: a, weight: Number.NaN }] })),
    ).toThrow(/model 2 is not finite[\s\S]*family-mismatch[\s\S]*llama[\s\S]*qwen3/)
  })

  it('refuses factors that are not finite, and models that do not fit', () => {
    const wide = tinyModel(2, { intermediate_size: 5 })
    const models = [{ model: a, weight: Number.NaN }, { model: wide }]
    expect(() => pipe(base, taskArithmetic({ models }))).toThrow(/weight of model 1[\s\S]*gate_proj/)
  })
})
