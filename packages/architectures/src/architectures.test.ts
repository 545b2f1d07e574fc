import {
  configDifferences,
  countParameters,
  denseName,
  dimensionsOf,
  expectedTensors,
  FAMILIES,
  type Family,
  familyNamed,
  familyOf,
  isSparseLayer,
  type MoeConfigOptions,
  moeConfig,
  moeTarget,
  nameOf,
  roleOf,
  SHARED_EXPERT_PLACEHOLDER,
  type TargetName,
  tensorProblems,
} from '@polygraft/architectures'
import { type JsonObject, ModelError, numel, read, type StateDict, type Tensor } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

const sizes = {
  vocab_size: 50,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
}
const DENSE: Record<string, JsonObject> = {
  llama: { model_type: 'llama', architectures: ['LlamaForCausalLM'], torch_dtype: 'bfloat16', ...sizes },
  mistral: { model_type: 'mistral', ...sizes, sliding_window: null },
  qwen2: { model_type: 'qwen2', ...sizes, use_sliding_window: false, sliding_window: 77 },
  qwen3: { model_type: 'qwen3', ...sizes, head_dim: 8 },
}
const options = { numExperts: 4, topK: 2 }
const mixture = (config: JsonObject, target: TargetName = 'auto', chosen: MoeConfigOptions = options) =>
  moeConfig(config, moeTarget(familyOf(config), config, target), chosen)
const codes = (work: () => unknown): readonly string[] => {
  try {
    work()
  } catch (error) {
    if (error instanceof ModelError) return error.problems.map(({ code }) => code)
    throw error
  }
  return []
}
const elements = (shapes: ReadonlyMap<string, readonly number[]>) =>
  [...shapes.values()].reduce((sum, shape) => sum + numel(shape), 0)

describe('familyOf', () => {
  it('finds each family by its model_type', () => {
    for (const family of FAMILIES) expect(familyOf({ model_type: family.modelType })).toBe(family)
    expect(familyNamed('bert')).toBeUndefined()
  })

  it.each(['gemma2', 'gemma3', 'olmoe', 'phimoe', 'phi3'])('refuses %s and says why', (model_type) => {
    expect(() => familyOf({ model_type })).toThrow(/is not supported: .{20}/)
    expect(() => familyOf({ model_type })).toThrow(/llama, mistral, qwen2, qwen3, mixtral/)
  })

  it.each([
    [{}, 'no model_type'],
    [{ model_type: 'toString' }, '"toString"'],
    [{ model_type: 7 }, '7'],
  ])('refuses %j', (config, received) => {
    expect(() => familyOf(config)).toThrow(
      expect.objectContaining({
        code: 'unsupported-family',
        message: expect.stringContaining(received),
      }) as Error,
    )
  })
})

describe('roles', () => {
  const everyName = FAMILIES.flatMap((family) => {
    const config = DENSE[family.modelType] ?? mixtureOf(family)
    return [...expectedTensors(family, config).keys()].map((name) => [family, name] as const)
  })

  function mixtureOf(target: Family): JsonObject {
    const dense = FAMILIES.find(({ targets }) => targets.includes(target.modelType))!
    return mixture(DENSE[dense.modelType]!, target.modelType as TargetName)
  }

  it('and names are inverse', () => {
    for (const [family, name] of everyName) {
      const role = roleOf(family, name)
      expect(['other', 'buffer']).not.toContain(role.group)
      expect(nameOf(family, role)).toBe(name)
    }
  })

  it.each([
    ['llama', 'model.layers.12.mlp.down_proj.weight', { group: 'ffn', layer: 12, part: 'down' }],
    ['llama', 'model.layers.0.self_attn.rotary_emb.inv_freq', { group: 'buffer' }],
    ['llama', 'model.layers.01.mlp.down_proj.weight', { group: 'other' }],
    ['llama', 'model.layers.0.mlp.down_proj.weight.extra', { group: 'other' }],
    ['llama', 'xmodel.norm.weight', { group: 'other' }],
    ['llama', 'model.layers.0.block_sparse_moe.gate.weight', { group: 'other' }],
    ['mixtral', 'model.layers.1.block_sparse_moe.gate.weight', { group: 'router', layer: 1 }],
    [
      'mixtral',
      'model.layers.1.block_sparse_moe.experts.3.w3.weight',
      { group: 'expert', layer: 1, expert: 3, part: 'up' },
    ],
    [
      'qwen2_moe',
      'model.layers.1.mlp.experts.10.gate_proj.weight',
      { group: 'expert', layer: 1, expert: 10, part: 'gate' },
    ],
    [
      'qwen2_moe',
      'model.layers.1.mlp.shared_expert_gate.weight',
      { group: 'shared_expert', layer: 1, part: 'scale' },
    ],
    [
      'granitemoe',
      'model.layers.1.block_sparse_moe.input_linear.weight',
      { group: 'expert', layer: 1, part: 'gate_up' },
    ],
    ['granitemoe', 'model.layers.1.block_sparse_moe.router.layer.weight', { group: 'router', layer: 1 }],
    ['qwen3_moe', 'model.layers.1.mlp.gate.weight', { group: 'router', layer: 1 }],
    ['qwen3_moe', 'model.layers.1.mlp.gate_proj.weight', { group: 'ffn', layer: 1, part: 'gate' }],
    ['qwen3', 'model.layers.1.self_attn.q_norm.weight', { group: 'norm', layer: 1, part: 'q_norm' }],
  ] as const)('%s %s', (family, name, role) => {
    expect(roleOf(familyNamed(family)!, name)).toEqual(role)
  })

  it('a role that the family lacks has no name', () => {
    const llama = familyNamed('llama')!
    expect(nameOf(llama, { group: 'router', layer: 0 })).toBeUndefined()
    expect(nameOf(llama, { group: 'ffn', part: 'gate' })).toBeUndefined()
    expect(nameOf(llama, { group: 'head', layer: 1 })).toBeUndefined()
  })

  it.each([
    [
      'mixtral',
      'llama',
      'model.layers.2.block_sparse_moe.experts.5.w2.weight',
      'model.layers.2.mlp.down_proj.weight',
    ],
    ['mixtral', 'llama', 'model.layers.2.block_sparse_moe.gate.weight', undefined],
    ['mixtral', 'llama', 'lm_head.weight', 'lm_head.weight'],
    ['qwen2_moe', 'qwen2', 'model.layers.0.self_attn.q_proj.bias', 'model.layers.0.self_attn.q_proj.bias'],
    ['qwen2_moe', 'qwen2', 'model.layers.0.mlp.shared_expert.up_proj.weight', undefined],
    ['qwen2_moe', 'qwen2', 'model.layers.0.mlp.up_proj.weight', 'model.layers.0.mlp.up_proj.weight'],
    [
      'qwen3_moe',
      'qwen3',
      'model.layers.0.mlp.experts.0.up_proj.weight',
      'model.layers.0.mlp.up_proj.weight',
    ],
    ['mixtral', 'llama', 'model.rotary_emb.inv_freq', undefined],
    ['granitemoe', 'llama', 'model.layers.0.block_sparse_moe.output_linear.weight', undefined],
    ['granitemoe', 'llama', 'model.layers.0.block_sparse_moe.input_linear.weight', undefined],
  ] as const)('%s to %s: %s', (mixtureType, dense, name, expected) => {
    expect(denseName(familyNamed(mixtureType)!, familyNamed(dense)!, name)).toBe(expected)
  })
})

describe('expectedTensors', () => {
  it('is in model order, with the shapes of grouped-query attention', () => {
    const shapes = expectedTensors(familyNamed('qwen3')!, DENSE.qwen3!)
    const names = [...shapes.keys()]
    expect(names[0]).toBe('model.embed_tokens.weight')
    expect(names.slice(-2)).toEqual(['model.norm.weight', 'lm_head.weight'])
    expect(names.indexOf('model.layers.0.mlp.down_proj.weight')).toBeLessThan(
      names.indexOf('model.layers.1.input_layernorm.weight'),
    )
    expect(shapes.get('model.layers.0.self_attn.q_proj.weight')).toEqual([32, 16])
    expect(shapes.get('model.layers.0.self_attn.k_proj.weight')).toEqual([16, 16])
    expect(shapes.get('model.layers.0.self_attn.o_proj.weight')).toEqual([16, 32])
    expect(shapes.get('model.layers.0.self_attn.k_norm.weight')).toEqual([8])
  })

  it.each([
    ['llama', {}, 3 + 9 * 3],
    ['llama', { tie_word_embeddings: true }, 2 + 9 * 3],
    ['llama', { attention_bias: true, mlp_bias: true }, 3 + 16 * 3],
    ['mistral', {}, 3 + 9 * 3],
    ['qwen2', {}, 3 + 12 * 3],
    ['qwen3', {}, 3 + 11 * 3],
    ['qwen3', { attention_bias: true }, 3 + 15 * 3],
  ] as const)('%s %j has %i tensors', (family, change, count) => {
    expect(expectedTensors(familyNamed(family)!, { ...DENSE[family]!, ...change }).size).toBe(count)
  })

  it('leaves the layers dense that mlp_only_layers or decoder_sparse_step say', () => {
    const config = {
      ...mixture(DENSE.qwen3!),
      num_hidden_layers: 4,
      mlp_only_layers: [3],
      decoder_sparse_step: 2,
    }
    const family = familyOf(config)
    expect([0, 1, 2, 3].map((layer) => isSparseLayer(family, config, layer))).toEqual([
      false,
      true,
      false,
      false,
    ])
    const shapes = expectedTensors(family, config)
    expect(shapes.has('model.layers.0.mlp.gate_proj.weight')).toBe(true)
    expect(shapes.has('model.layers.0.mlp.gate.weight')).toBe(false)
    expect(shapes.has('model.layers.1.mlp.gate_proj.weight')).toBe(false)
    expect(shapes.get('model.layers.1.mlp.gate.weight')).toEqual([4, 16])
    expect(isSparseLayer(familyNamed('llama')!, DENSE.llama!, 0)).toBe(false)
  })

  it('lists every field that is missing or wrong, and refuses sizes no model has', () => {
    const { hidden_size: _, ...config } = DENSE.llama!
    expect(
      codes(() =>
        expectedTensors(familyNamed('llama')!, {
          ...config,
          num_hidden_layers: 1.5,
          num_key_value_heads: '2',
        }),
      ),
    ).toHaveLength(3)
    expect(
      codes(() => dimensionsOf(familyNamed('llama')!, { ...DENSE.llama!, num_hidden_layers: 1e9 })),
    ).toEqual(['bad-config'])
    const many = {
      ...mixture(DENSE.llama!),
      num_hidden_layers: 10_000,
      num_experts: 1000,
      num_local_experts: 1000,
    }
    expect(codes(() => expectedTensors(familyOf(many), many))).toEqual(['bad-config'])
  })
})

describe('tensorProblems', () => {
  const family = familyNamed('llama')!
  const tensorsOf = (config: JsonObject) =>
    new Map(
      [...expectedTensors(family, config)].map(([name, shape]) => [
        name,
        { dtype: 'BF16' as const, shape, expr: read('s', name) },
      ]),
    )

  it('finds none in a stock checkpoint, with or without buffers or a stored tied head', () => {
    const tied = { ...DENSE.llama!, tie_word_embeddings: true }
    const tensors: StateDict = new Map<string, Tensor>([
      ...tensorsOf(DENSE.llama!),
      ['model.rotary_emb.inv_freq', { dtype: 'F32', shape: [2], expr: read('s', 'f') }],
    ])
    expect(tensorProblems(family, DENSE.llama!, tensors)).toEqual([])
    expect(tensorProblems(family, tied, tensors)).toEqual([])
  })

  it('lists missing, unexpected, misshapen and quantised tensors together', () => {
    const tensors = new Map<string, Tensor>(tensorsOf(DENSE.llama!))
    tensors.delete('model.norm.weight')
    tensors.set('model.layers.9.input_layernorm.weight', { dtype: 'BF16', shape: [16], expr: read('s', 'x') })
    tensors.set('lm_head.weight', { dtype: 'I8', shape: [16, 50], expr: read('s', 'lm_head.weight') })
    expect(tensorProblems(family, DENSE.llama!, tensors).map(({ code, tensor }) => [code, tensor])).toEqual([
      ['missing-tensor', 'model.norm.weight'],
      ['shape-mismatch', 'lm_head.weight'],
      ['not-float', 'lm_head.weight'],
      ['unexpected-tensor', 'model.layers.9.input_layernorm.weight'],
    ])
  })
})

describe('fused experts', () => {
  it('are refused with the way to split them', () => {
    const config = mixture(DENSE.llama!)
    const name = 'model.layers.0.mlp.experts.gate_up_proj'
    const tensors: StateDict = new Map([[name, { dtype: 'BF16', shape: [4, 48, 16], expr: read('s', name) }]])
    const problem = tensorProblems(familyOf(config), config, tensors).find(({ tensor }) => tensor === name)
    expect(problem).toMatchObject({
      code: 'unexpected-tensor',
      next: expect.stringContaining('save_pretrained'),
    })
  })
})

describe('moeTarget', () => {
  it.each([
    ['llama', 'auto', 'mixtral'],
    ['llama', 'qwen2_moe', 'qwen2_moe'],
    ['llama', 'granitemoe', 'granitemoe'],
    ['mistral', 'auto', 'mixtral'],
    ['mistral', 'qwen2_moe', 'qwen2_moe'],
    ['mistral', 'granitemoe', 'granitemoe'],
    ['qwen2', 'granitemoe', 'granitemoe'],
    ['qwen2', 'auto', 'qwen2_moe'],
    ['qwen3', 'auto', 'qwen3_moe'],
  ] as const)('%s, %s becomes %s', (dense, wanted, expected) => {
    expect(moeTarget(familyNamed(dense)!, DENSE[dense]!, wanted).modelType).toBe(expected)
  })

  it.each([
    ['llama', {}, 'qwen3_moe', ['target-cannot-hold']],
    ['qwen2', {}, 'mixtral', ['target-cannot-hold']],
    ['mistral', {}, 'qwen3_moe', ['target-cannot-hold']],
    ['mistral', { sliding_window: 9 }, 'granitemoe', ['target-cannot-hold']],
    ['qwen3', {}, 'granitemoe', ['target-cannot-hold']],
    ['llama', { attention_bias: true }, 'granitemoe', []],
    ['llama', { head_dim: 8 }, 'granitemoe', ['target-cannot-hold']],
    ['llama', { attention_bias: true, mlp_bias: true }, 'mixtral', Array(3).fill('target-cannot-hold')],
    ['llama', { attention_bias: true }, 'qwen2_moe', ['target-cannot-hold']],
    ['llama', { head_dim: 8 }, 'qwen2_moe', ['target-cannot-hold']],
    ['llama', { head_dim: 8 }, 'mixtral', []],
    ['llama', { quantization_config: { quant_method: 'fp8' } }, 'mixtral', ['quantised']],
    ['qwen2', { use_sliding_window: true, max_window_layers: 1 }, 'auto', ['target-cannot-hold']],
    ['qwen3', { use_sliding_window: true, max_window_layers: 1 }, 'auto', ['target-cannot-hold']],
    ['qwen3', { use_sliding_window: true, max_window_layers: 3 }, 'auto', []],
    ['qwen2', { use_sliding_window: true, max_window_layers: 0 }, 'auto', []],
    ['qwen3', { rope_parameters: { full_attention: { rope_theta: 1 } } }, 'auto', ['target-cannot-hold']],
  ] as const)('%s with %j as %s: %j', (dense, change, wanted, expected) => {
    expect(codes(() => moeTarget(familyNamed(dense)!, { ...DENSE[dense]!, ...change }, wanted))).toEqual(
      expected,
    )
  })

  it('refuses a mixture', () => {
    expect(codes(() => moeTarget(familyNamed('mixtral')!, {}, 'auto'))).toEqual(['already-moe'])
  })
})

describe('moeConfig', () => {
  it('Llama to Mixtral', () => {
    const config = {
      ...DENSE.llama!,
      rope_theta: 500000,
      rope_scaling: { type: 'linear', factor: 2 },
      sliding_window: 9,
    }
    expect(mixture({ ...config, eos_token_id: [2, 3], made_by: 'us', auto_map: { x: 'y' } })).toEqual({
      architectures: ['MixtralForCausalLM'],
      model_type: 'mixtral',
      ...sizes,
      head_dim: 4,
      hidden_act: 'silu',
      rms_norm_eps: 1e-6,
      max_position_embeddings: 2048,
      tie_word_embeddings: false,
      attention_bias: false,
      mlp_bias: false,
      eos_token_id: [2, 3],
      made_by: 'us',
      rope_theta: 500000,
      rope_scaling: { rope_type: 'linear', factor: 2 },
      rope_parameters: { rope_theta: 500000, rope_type: 'linear', factor: 2 },
      sliding_window: null,
      num_experts: 4,
      num_local_experts: 4,
      num_experts_per_tok: 2,
      output_router_logits: false,
      router_aux_loss_coef: 0.01,
      dtype: 'bfloat16',
      torch_dtype: 'bfloat16',
    })
  })

  it('writes out what the dense class means by an absent field', () => {
    const { sliding_window: _, num_key_value_heads: __, ...config } = DENSE.mistral!
    expect(mixture(config)).toMatchObject({
      sliding_window: 4096,
      num_key_value_heads: 8,
      rms_norm_eps: 1e-6,
      rope_theta: 10000,
    })
    expect(mixture({ ...DENSE.mistral!, sliding_window: null }).sliding_window).toBeNull()
    const { num_key_value_heads: ___, ...llama } = DENSE.llama!
    expect(mixture({ ...llama, head_dim: null })).toMatchObject({ num_key_value_heads: 4, head_dim: 4 })
    const { head_dim: ____, ...qwen3 } = DENSE.qwen3!
    expect(mixture(qwen3).head_dim).toBe(128)
  })

  it('Qwen2 to Qwen2-MoE, with a placeholder for the shared expert', () => {
    expect(mixture(DENSE.qwen2!)).toMatchObject({
      architectures: ['Qwen2MoeForCausalLM'],
      model_type: 'qwen2_moe',
      intermediate_size: 24,
      moe_intermediate_size: 24,
      shared_expert_intermediate_size: SHARED_EXPERT_PLACEHOLDER,
      decoder_sparse_step: 1,
      mlp_only_layers: [],
      norm_topk_prob: true,
      qkv_bias: true,
      use_sliding_window: false,
      layer_types: ['full_attention', 'full_attention', 'full_attention'],
      num_experts: 4,
      num_local_experts: 4,
    })
    const sliding = { ...DENSE.qwen2!, use_sliding_window: true, max_window_layers: 0 }
    expect(mixture(sliding)).toMatchObject({
      use_sliding_window: true,
      sliding_window: 77,
      max_window_layers: 0,
      layer_types: ['sliding_attention', 'sliding_attention', 'sliding_attention'],
    })
  })

  it('Llama to Qwen2-MoE has no bias; Qwen3 to Qwen3-MoE keeps its own', () => {
    expect(mixture(DENSE.llama!, 'qwen2_moe')).toMatchObject({ qkv_bias: false, use_sliding_window: false })
    expect(mixture(DENSE.qwen3!)).toMatchObject({ attention_bias: false, norm_topk_prob: true, head_dim: 8 })
    expect(mixture({ ...DENSE.qwen3!, attention_bias: true }).attention_bias).toBe(true)
    expect(mixture(DENSE.qwen3!)).not.toHaveProperty('shared_expert_intermediate_size')
  })

  it('refuses a Mixtral that does not renormalise', () => {
    const mixtral = familyNamed('mixtral')!
    expect(codes(() => moeConfig(DENSE.llama!, mixtral, { ...options, normTopkProb: false }))).toEqual([
      'target-cannot-hold',
    ])
    const qwen3Moe = familyNamed('qwen3_moe')!
    expect(moeConfig(DENSE.qwen3!, qwen3Moe, { ...options, normTopkProb: false }).norm_topk_prob).toBe(false)
  })

  it("Granite-MoE has the others' built-in factors as multipliers, and all attention biases or none", () => {
    const multipliers = { attention_multiplier: 0.5, embedding_multiplier: 1, residual_multiplier: 1 }
    expect(mixture(DENSE.llama!, 'granitemoe')).toMatchObject({ ...multipliers, attention_bias: false })
    const written = mixture(DENSE.qwen2!, 'granitemoe')
    expect(written).toMatchObject({ ...multipliers, attention_bias: true, sliding_window: null })
    const shapes = expectedTensors(familyOf(written), written)
    expect(shapes.get('model.layers.0.self_attn.o_proj.bias')).toEqual([16])
    expect(shapes.get('model.layers.2.block_sparse_moe.input_linear.weight')).toEqual([4, 48, 16])
    expect(shapes.get('model.layers.2.block_sparse_moe.output_linear.weight')).toEqual([4, 16, 24])
    expect(shapes.get('model.layers.2.block_sparse_moe.router.layer.weight')).toEqual([4, 16])
  })

  it('cuts experts into parts, keeps layers dense, and makes room for a shared expert', () => {
    expect(mixture(DENSE.llama!, 'mixtral', { ...options, granularity: 3 })).toMatchObject({
      num_local_experts: 12,
      num_experts_per_tok: 6,
      intermediate_size: 8,
    })
    const kept = { ...options, granularity: 2, denseLayers: [2, 0], sharedExpert: 'derived' as const }
    const config = mixture(DENSE.qwen2!, 'auto', kept)
    expect(config).toMatchObject({
      mlp_only_layers: [0, 2],
      intermediate_size: 24,
      moe_intermediate_size: 12,
      shared_expert_intermediate_size: 24,
    })
    const shapes = expectedTensors(familyOf(config), config)
    expect(shapes.get('model.layers.0.mlp.down_proj.weight')).toEqual([16, 24])
    expect(shapes.get('model.layers.1.mlp.experts.7.down_proj.weight')).toEqual([16, 12])
    expect(shapes.get('model.layers.1.mlp.shared_expert.down_proj.weight')).toEqual([16, 24])
  })

  it.each<[string, TargetName, Partial<MoeConfigOptions>, readonly string[]]>([
    ['llama', 'mixtral', { granularity: 5 }, ['bad-option']],
    ['llama', 'mixtral', { denseLayers: [1] }, ['target-cannot-hold']],
    ['llama', 'granitemoe', { denseLayers: [1] }, ['target-cannot-hold']],
    ['llama', 'qwen2_moe', { denseLayers: [3, -1] }, ['bad-option']],
    ['qwen3', 'auto', { denseLayers: [0, 1, 2] }, ['bad-option']],
    ['qwen3', 'auto', { sharedExpert: 'derived' }, ['target-cannot-hold']],
    [
      'llama',
      'mixtral',
      { granularity: 0.5, denseLayers: [9], sharedExpert: 'derived', normTopkProb: false },
      ['target-cannot-hold', 'bad-option', 'target-cannot-hold', 'bad-option', 'target-cannot-hold'],
    ],
  ])('%s as %s with %j: %j', (dense, target, chosen, expected) => {
    expect(codes(() => mixture(DENSE[dense]!, target, { ...options, ...chosen }))).toEqual(expected)
  })

  it('reads the RoPE of either major, and writes both', () => {
    const llama3 = { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4 }
    const old = { ...DENSE.llama!, rope_theta: 5e5, rope_scaling: llama3, max_position_embeddings: 64 }
    const { rope_theta: _, rope_scaling: __, ...rest } = old
    const recent = { ...rest, rope_parameters: { ...llama3, rope_theta: 5e5 } }
    const expected = { ...llama3, original_max_position_embeddings: 64 }
    for (const config of [old, recent])
      expect(mixture(config)).toMatchObject({
        rope_theta: 5e5,
        rope_scaling: expected,
        rope_parameters: { ...expected, rope_theta: 5e5 },
      })
    expect(
      mixture({ ...DENSE.llama!, rope_parameters: { rope_type: 'default', rope_theta: 7 } }),
    ).toMatchObject({
      rope_theta: 7,
      rope_scaling: null,
      rope_parameters: { rope_type: 'default', rope_theta: 7 },
    })
  })
})

describe('countParameters', () => {
  const config = fc.record({
    vocab_size: fc.integer({ min: 1, max: 90 }),
    hidden_size: fc.constantFrom(8, 16, 24),
    intermediate_size: fc.integer({ min: 1, max: 40 }),
    num_hidden_layers: fc.integer({ min: 1, max: 4 }),
    num_attention_heads: fc.constantFrom(2, 4),
    num_key_value_heads: fc.constantFrom(1, 2),
    tie_word_embeddings: fc.boolean(),
  })
  const experts = fc
    .integer({ min: 1, max: 5 })
    .chain((e) => fc.tuple(fc.constant(e), fc.integer({ min: 1, max: e })))

  it.each(['llama', 'mistral', 'qwen2', 'qwen3'] as const)(
    '%s: N + (E-1) 3HI |S| + E H |S|',
    (model_type) => {
      fc.assert(
        fc.property(config, experts, (fields, [numExperts, topK]) => {
          const dense = { ...fields, model_type }
          const [H, I, S] = [fields.hidden_size, fields.intermediate_size, fields.num_hidden_layers]
          const granularity = I % 2 === 0 ? 2 : 1
          const sparse = mixture(dense, 'auto', { numExperts, topK, granularity })
          const n = countParameters(familyOf(dense), dense)
          expect(n.active).toBe(n.total)
          const placeholder = model_type === 'qwen2' ? (3 * SHARED_EXPERT_PLACEHOLDER + 1) * H * S : 0
          const beside = n.total + numExperts * granularity * H * S + placeholder
          expect(countParameters(familyOf(sparse), sparse)).toEqual({
            total: beside + (numExperts - 1) * 3 * H * I * S,
            active: beside + (topK - 1) * 3 * H * I * S,
          })
        }),
        { numRuns: 30 },
      )
    },
  )

  it('Llama-3.1-8B: 8.03 B dense; 13.67, 24.94 and 47.49 B with 2, 4 and 8 experts; 13.67 B active', () => {
    const llama31: JsonObject = {
      model_type: 'llama',
      vocab_size: 128256,
      hidden_size: 4096,
      intermediate_size: 14336,
      num_hidden_layers: 32,
      num_attention_heads: 32,
      num_key_value_heads: 8,
    }
    const billions = (count: number) => (count / 1e9).toFixed(2)
    expect(billions(countParameters(familyOf(llama31), llama31).total)).toBe('8.03')
    expect(elements(expectedTensors(familyOf(llama31), llama31))).toBe(8030261248)
    const rows = [2, 4, 8].map((numExperts) => {
      const sparse = mixture(llama31, 'auto', { numExperts, topK: 2 })
      const { total, active } = countParameters(familyOf(sparse), sparse)
      return [billions(total), billions(active)]
    })
    expect(rows).toEqual([
      ['13.67', '13.67'],
      ['24.94', '13.67'],
      ['47.49', '13.67'],
    ])
  })
})

describe('configDifferences', () => {
  it.each(['llama', 'mistral', 'qwen2', 'qwen3'])('%s agrees with itself and with its mixtures', (family) => {
    const config = DENSE[family]!
    expect(configDifferences(config, config)).toEqual([])
    for (const target of familyNamed(family)!.targets as TargetName[]) {
      expect(configDifferences(config, mixture(config, target))).toEqual([])
      expect(configDifferences(mixture(config, target), config)).toEqual([])
    }
  })

  it("sees Granite's multipliers", () => {
    const granite = mixture(DENSE.llama!, 'granitemoe')
    const { attention_multiplier: _, ...absent } = granite
    for (const other of [absent, { ...granite, logits_scaling: 8 }])
      expect(configDifferences(DENSE.llama!, other)).toHaveLength(1)
  })

  it('agrees across spellings, absent fields, and what may differ', () => {
    const spelt = {
      ...DENSE.llama!,
      rope_theta: 10000,
      rope_scaling: null,
      hidden_act: 'swish',
      head_dim: 4,
      vocab_size: 51,
      tie_word_embeddings: true,
      max_position_embeddings: 9,
    }
    expect(configDifferences(DENSE.llama!, spelt)).toEqual([])
    expect(
      configDifferences(spelt, {
        ...DENSE.llama!,
        rope_parameters: { rope_type: 'default', rope_theta: 10000 },
      }),
    ).toEqual([])
    expect(configDifferences(mixture(DENSE.llama!, 'qwen2_moe'), DENSE.llama!)).toEqual([])
  })

  it.each([
    [{ hidden_size: 20, head_dim: 4 }, ['hidden_size']],
    [{ intermediate_size: 25 }, ['intermediate_size']],
    [{ num_hidden_layers: 2 }, ['num_hidden_layers']],
    [{ num_attention_heads: 8, head_dim: 4 }, ['num_attention_heads']],
    [{ num_key_value_heads: 4 }, ['num_key_value_heads']],
    [{ head_dim: 8 }, ['head_dim']],
    [{ hidden_act: 'gelu' }, ['hidden_act']],
    [{ rms_norm_eps: 1e-5 }, ['rms_norm_eps']],
    [{ rope_theta: 1e6 }, ['rope theta']],
    [{ rope_scaling: { rope_type: 'linear', factor: 2 } }, ['rope scaling']],
    [{ attention_bias: true }, ['bias on q, k, v', "bias on attention's output"]],
    [{ mlp_bias: true }, ['bias in the feed-forward block']],
    [{ rms_norm_eps: 1e-5, rope_theta: 7 }, ['rms_norm_eps', 'rope theta']],
  ])('Llama against %j', (change, names) => {
    const problems = configDifferences(DENSE.llama!, { ...DENSE.llama!, ...change })
    expect(problems.map(({ message }) => message.replace('The configs disagree on ', ''))).toEqual(names)
    expect(problems.every(({ expected, received }) => expected !== received)).toBe(true)
  })

  it('sees a sliding window', () => {
    const sliding = { ...DENSE.qwen2!, use_sliding_window: true, max_window_layers: 1 }
    expect(configDifferences(DENSE.qwen2!, sliding)).toMatchObject([
      { code: 'config-mismatch', expected: 'none', received: '77 in layers 1, 2 of 3' },
    ])
    const typed = {
      ...sliding,
      max_window_layers: 3,
      layer_types: ['full_attention', 'sliding_attention', 'sliding_attention'],
    }
    expect(configDifferences(sliding, typed)).toEqual([])
  })
})
