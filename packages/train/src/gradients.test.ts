import { expectedTensors, familyOf } from '@polygraft/architectures'
import { numel } from '@polygraft/tensor'
import { type Batch, decoderSpec, lossAndGradients, tensorNames } from '@polygraft/train'
import { describe, expect, it } from 'vitest'

const small = {
  vocab_size: 11,
  hidden_size: 8,
  intermediate_size: 6,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  hidden_act: 'silu',
  max_position_embeddings: 32,
}
const experts = { num_experts: 3, num_experts_per_tok: 2, moe_intermediate_size: 5, norm_topk_prob: true }
const batch = {
  tokens: Int32Array.of(1, 4, 2, 9, 3, 3, 7),
  targets: Int32Array.of(4, 2, 9, -1, 3, 7, -1),
  segments: [
    { begin: 0, end: 4, isOriginal: true, experts: [0] },
    { begin: 4, end: 7, experts: [1, 2] },
  ],
}

/** Deterministic values around 0, F64. */
function draw(length: number, seed: number): Float64Array {
  return Float64Array.from({ length }, (_, i) => Math.sin(seed * 12.9898 + i * 78.233) * 0.6)
}

describe('gradients against central differences in F64, for every tensor', () => {
  it.each([
    ['llama with biases', { ...small, model_type: 'llama', attention_bias: true, mlp_bias: true }],
    ['llama, tied', { ...small, model_type: 'llama', tie_word_embeddings: true }],
    ['mistral with a window', { ...small, model_type: 'mistral', sliding_window: 2 }],
    ['qwen2', { ...small, model_type: 'qwen2' }],
    ['qwen3', { ...small, model_type: 'qwen3', head_dim: 4 }],
    ['mixtral', { ...small, model_type: 'mixtral', num_local_experts: 3, num_experts_per_tok: 2 }],
    [
      'qwen2_moe with a shared expert and a dense layer',
      {
        ...small,
        ...experts,
        model_type: 'qwen2_moe',
        shared_expert_intermediate_size: 4,
        mlp_only_layers: [0],
      },
    ],
    [
      'qwen3_moe, gate B',
      { ...small, ...experts, model_type: 'qwen3_moe', head_dim: 4, norm_topk_prob: false },
    ],
  ])('%s', (_, config) => {
    const spec = decoderSpec(config)
    const shapes = expectedTensors(familyOf(config), config)
    expect([...tensorNames(spec)].sort()).toEqual([...shapes.keys()].sort())
    const values = new Map([...shapes].map(([name, shape], i) => [name, draw(numel(shape), i + 1)]))
    const gradients = new Map([...shapes].map(([name, shape]) => [name, new Float64Array(numel(shape))]))
    const lprForm = spec.normalize ? 'exact' : 'published'
    const losses = { balance: 0.3, z: 0.2, lpr: 0.4, language: 0.5, lprForm } as const
    const lossOf = () => lossAndGradients(spec, values, new Map(), batch, { losses })
    expect(lossAndGradients(spec, values, gradients, batch, { losses })).toBe(lossOf())
    const step = 1e-5
    for (const [name, value] of values)
      for (let i = 0; i < value.length; i += Math.max(1, Math.floor(value.length / 5))) {
        const kept = value[i]!
        value[i] = kept + step
        const above = lossOf()
        value[i] = kept - step
        const slope = (above - lossOf()) / (2 * step)
        value[i] = kept
        expect(Math.abs(gradients.get(name)![i]! - slope), `${name}[${i}]`).toBeLessThan(
          1e-7 + 1e-6 * Math.abs(slope),
        )
      }
  })
})

describe('language losses', () => {
  const config = { ...small, model_type: 'mixtral', num_local_experts: 3, num_experts_per_tok: 2 }
  const spec = decoderSpec(config)
  const shapes = [...expectedTensors(familyOf(config), config)]
  const values = new Map(shapes.map(([name, shape], i) => [name, draw(numel(shape), i + 1)]))
  const lossOf = (segments: Batch['segments'], losses: object) =>
    lossAndGradients(
      spec,
      values,
      new Map(),
      { ...batch, segments },
      { losses: { balance: 0, z: 0, ...losses } },
    )
  const plain = batch.segments.map(({ begin, end }) => ({ begin, end }))

  it('are nothing, and not NaN, in a batch without such tokens', () => {
    const without = lossOf(plain, {})
    expect(lossOf(plain, { lpr: 1, language: 1 })).toBe(without)
    expect(lossOf(plain, { lpr: 1, lprForm: 'published' })).toBe(without)
  })

  it('is for the group of expert 0 what LPR is', () => {
    const first = plain.map((segment) => ({ ...segment, isOriginal: true, experts: [0] }))
    expect(lossOf(first, { lpr: 1 })).toBeCloseTo(lossOf(first, { language: 1 }), 12)
  })

  it('is log E where the router tells nothing apart, and has its floor as published', () => {
    const router = /block_sparse_moe\.gate/
    const sure = new Map(
      [...values].map(([name, value]) => [name, router.test(name) ? value.map(() => 0) : value]),
    )
    const segments = plain.map((segment) => ({ ...segment, isOriginal: true }))
    const of = (lprForm: 'exact' | 'published', lpr: number) =>
      lossAndGradients(
        spec,
        sure,
        new Map(),
        { ...batch, segments },
        { losses: { balance: 0, z: 0, lpr, lprForm } },
      )
    // Equal logits: p is 1/3 everywhere, and softmax(p) too.
    expect(of('exact', 1) - of('exact', 0)).toBeCloseTo(Math.log(3), 12)
    expect(of('published', 1) - of('published', 0)).toBeCloseTo(Math.log(3), 12)
    expect(lossOf(segments, { lpr: 1, lprForm: 'published' }) - lossOf(segments, {})).toBeGreaterThan(
      Math.log(1 + 2 / Math.E),
    )
  })
})
