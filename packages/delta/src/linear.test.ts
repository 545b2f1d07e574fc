import { linear } from '@polygraft/delta'
import { pipe, type Tensor } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'
import { checkpointOf, tinyModel, valuesOf } from '../test/memory.js'

const f32 = Math.fround
const NAME = 'model.norm.weight'
const norm = ({ tensors }: { tensors: ReadonlyMap<string, Tensor> }) => valuesOf(tensors.get(NAME))

describe('linear', () => {
  const [a, b, c] = [tinyModel(1), tinyModel(2), tinyModel(3)]
  const weighted = (...weights: number[]) => [a, b, c].map((model, i) => ({ model, weight: weights[i]! }))

  it('is the mean by weights, which are divided by their sum', () => {
    const merged = pipe(a, linear({ models: weighted(2, 1, 1) }))
    expect([...merged.tensors.keys()]).toEqual([...a.tensors.keys()])
    for (const [name, tensor] of merged.tensors) {
      const [x, y, z] = [a, b, c].map(({ tensors }) => valuesOf(tensors.get(name)))
      expect(valuesOf(tensor)).toEqual(x!.map((value, i) => (2 * value + y![i]! + z![i]!) / 4))
    }
  })

  it('leaves weights as they are where asked, and the target alone with weight 0 for the others', () => {
    const sum = pipe(a, linear({ models: weighted(2, 1, 1), normalize: false }))
    expect(norm(sum)).toEqual(norm(a).map((x, i) => 2 * x + norm(b)[i]! + norm(c)[i]!))
    const alone = pipe(a, linear({ models: weighted(3, 0, 0) }))
    expect(norm(alone).map((x) => x + 0)).toEqual(norm(a).map((x) => x + 0)) // -0 is 0
  })

  it('keeps config and files of the target, names all sources, and records itself', () => {
    const merged = pipe(a, linear({ models: weighted(1, 1, 2) }))
    expect([merged.config, merged.files]).toEqual([a.config, a.files])
    const [idA, idB, idC] = [a, b, c].map(({ sources }) => [...sources.keys()][0])
    expect([...merged.sources.keys()]).toEqual([idA, idB, idC])
    expect(merged.provenance.recipe).toEqual([
      { op: 'linear', inputs: { target: idA, models: [idA, idB, idC] }, weights: [1, 1, 2], normalize: true },
    ])
  })

  it('unties the target where a model has a head of its own', () => {
    const tied = tinyModel(4, { tie_word_embeddings: true })
    const merged = pipe(tied, linear({ models: [{ model: tied }, { model: b }] }))
    expect(merged.config.tie_word_embeddings).toBe(false)
    const [embedding, head] = [tied, b].map(({ tensors }, i) =>
      valuesOf(tensors.get(i === 0 ? 'model.embed_tokens.weight' : 'lm_head.weight')),
    )
    expect(valuesOf(merged.tensors.get('lm_head.weight'))).toEqual(
      embedding!.map((x, i) => (x + head![i]!) / 2),
    )
  })

  it('takes weights by tensor, and the target for shape and config only', () => {
    const weight = (tensor: string) => (tensor === NAME ? 3 : 1)
    const merged = pipe(a, linear({ models: [{ model: b, weight }, { model: c }] }))
    expect(norm(merged)).toEqual(norm(b).map((x, i) => f32(0.75 * x) + 0.25 * norm(c)[i]!))
    const embeddings = [merged, b, c].map(({ tensors }) => valuesOf(tensors.get('model.embed_tokens.weight')))
    expect(embeddings[0]).toEqual(embeddings[1]!.map((x, i) => (x + embeddings[2]![i]!) / 2))
    const { weights } = merged.provenance.recipe[0] as { weights: [Record<string, number>, number] }
    expect([weights[0][NAME], weights[0]['model.embed_tokens.weight'], weights[1]]).toEqual([3, 1, 1])
    const models = [{ model: b, weight: (name: string) => (name === NAME ? -1 : 1) }, { model: c }]
    expect(() => pipe(a, linear({ models }))).toThrow(`[zero-weights] (tensor ${NAME})`)
  })

  it('refuses weights without a mean', () => {
    const merge =
      (...weights: number[]) =>
      () =>
        pipe(a, linear({ models: weighted(...weights) }))
    expect(merge(2, -1, -1)).toThrow('zero-weights')
    expect(merge(0.3, -0.1, -0.2)).toThrow('zero-weights')
    expect(merge(Number.NaN, Number.POSITIVE_INFINITY, 1)).toThrow(/model 1 is not finite[\s\S]*model 2/)
    expect(() => pipe(a, linear({ models: weighted(2, -1, -1), normalize: false }))).not.toThrow()
  })

  it('lists everything that does not fit, of all models', () => {
    const target = checkpointOf({
      w: { shape: [2], values: [1, 2] },
      only: { shape: [1], values: [1] },
    })
    const reshaped = checkpointOf({
      w: { shape: [3], values: [1, 2, 3] },
      extra: { shape: [1], values: [1] },
    })
    const stored = checkpointOf({ w: { shape: [2], values: [1, 2] }, only: { shape: [1], values: [1] } })
    const quantised = {
      ...stored,
      tensors: new Map([...stored.tensors].map(([n, t]) => [n, { ...t, dtype: 'I8' as const }])),
    }
    const merge = () => pipe(target, linear({ models: [reshaped, quantised].map((model) => ({ model })) }))
    expect(merge).toThrow(
      /\[2\] as in the target[\s\S]*\[3\] in model 1[\s\S]*only[\s\S]*extra[\s\S]*model 2[\s\S]*I8/,
    )
    const tall = { model: tinyModel(2, { vocab_size: 7 }), weight: 1 }
    const eps = { model: tinyModel(3, { rms_norm_eps: 1 }), weight: 1 }
    expect(() => pipe(a, linear({ models: [tall, eps] }))).toThrow(
      /embed_tokens[\s\S]*lm_head[\s\S]*rms_norm_eps, in model 2/,
    )
    expect(() => pipe(a, linear({ models: [eps], force: true }))).not.toThrow()
    expect(() => pipe(a, linear({ models: [] }))).toThrow('no-models')
  })
})
