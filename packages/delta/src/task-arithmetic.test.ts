import { applyDelta, createDelta, taskArithmetic } from '@polygraft/delta'
import { pipe } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'
import { tinyModel, valuesOf } from '../test/memory.js'

describe('taskArithmetic', () => {
  const [base, a, b] = [tinyModel(1), tinyModel(2), tinyModel(3)]

  it('adds the scaled task vectors to the base', () => {
    const merged = pipe(base, taskArithmetic({ models: [{ model: a }, { model: b, lambda: 0.5 }] }))
    for (const [name, tensor] of merged.tensors) {
      const [x, y, z] = [base, a, b].map(({ tensors }) => valuesOf(tensors.get(name)))
      expect(valuesOf(tensor)).toEqual(x!.map((v, i) => v + (y![i]! - v) + 0.5 * (z![i]! - v)))
    }
    const [idBase, idA, idB] = [base, a, b].map(({ sources }) => [...sources.keys()][0])
    expect(merged.provenance.recipe).toEqual([
      { op: 'task_arithmetic', inputs: { base: idBase, models: [idA, idB] }, lambdas: [1, 0.5] },
    ])
  })

  it('with one model is that delta applied', () => {
    const merged = pipe(base, taskArithmetic({ models: [{ model: a, lambda: 0.25 }] }))
    const applied = pipe(base, applyDelta({ delta: createDelta({ base, post: a }), lambda: 0.25 }))
    for (const [name, tensor] of merged.tensors)
      expect(valuesOf(tensor)).toEqual(valuesOf(applied.tensors.get(name)))
  })

  it('refuses factors that are not finite, and models that do not fit', () => {
    const wide = tinyModel(2, { intermediate_size: 5 })
    const models = [{ model: a, lambda: Number.NaN }, { model: wide }]
    expect(() => pipe(base, taskArithmetic({ models }))).toThrow(/lambda of model 1[\s\S]*gate_proj/)
  })
})
