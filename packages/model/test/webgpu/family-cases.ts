import type { JsonObject } from '@polygraft/tensor'

/*
 * Every family and every option that a config has, at sizes that a GPU computed on a CPU bears; those of tools/conformance/model, where the CPU is
 * compared with transformers.
 */

const SMALL = {
  ...{ vocab_size: 96, hidden_size: 32, intermediate_size: 56, num_hidden_layers: 2 },
  ...{ num_attention_heads: 4, num_key_value_heads: 2, max_position_embeddings: 128 },
  ...{ tie_word_embeddings: false, rms_norm_eps: 1e-6, hidden_act: 'silu' },
} satisfies JsonObject

const rope = (rope_type: string, fields: JsonObject = {}) => ({
  rope_parameters: { rope_type, rope_theta: 10_000, ...fields },
})
const LLAMA3 = {
  ...{ factor: 8, low_freq_factor: 1, high_freq_factor: 4 },
  original_max_position_embeddings: 16,
}
const YARN = { factor: 4, original_max_position_embeddings: 16 }
const TIED = { tie_word_embeddings: true }
const QWEN_WINDOW = { use_sliding_window: true, sliding_window: 4, max_window_layers: 1 }
const EXPERTS = { num_experts: 5, num_experts_per_tok: 2, moe_intermediate_size: 24 }
const MIXTRAL = { num_local_experts: 4, num_experts_per_tok: 2 }
const QWEN2_MOE = { ...EXPERTS, shared_expert_intermediate_size: 40 }
const GRANITE = {
  ...MIXTRAL,
  ...{ attention_multiplier: 0.21, embedding_multiplier: 3, residual_multiplier: 0.4, logits_scaling: 2.5 },
}

/** Name, `model_type`, and what differs from SMALL. */
const CASES: readonly (readonly [name: string, modelType: string, fields: JsonObject])[] = [
  ['Llama', 'llama', {}],
  ['Llama, tied', 'llama', TIED],
  ['Llama, RoPE linear', 'llama', rope('linear', { factor: 4 })],
  ['Llama, RoPE dynamic', 'llama', { ...rope('dynamic', { factor: 4 }), max_position_embeddings: 8 }],
  ['Llama, RoPE llama3', 'llama', rope('llama3', LLAMA3)],
  ['Llama, RoPE yarn', 'llama', rope('yarn', YARN)],
  ['Llama, half of the head rotated', 'llama', rope('default', { partial_rotary_factor: 0.5 })],
  ['Llama, biases', 'llama', { attention_bias: true, mlp_bias: true }],
  ['Llama, heads wider than the rows', 'llama', { head_dim: 20 }],
  ['Llama, one head of keys', 'llama', { num_key_value_heads: 1 }],
  ['Llama, as many heads of keys', 'llama', { num_key_value_heads: 4 }],
  ['Llama, eps', 'llama', { rms_norm_eps: 0.1 }],
  ['Llama, gelu', 'llama', { hidden_act: 'gelu' }],
  ['Llama, gelu by tanh', 'llama', { hidden_act: 'gelu_pytorch_tanh' }],
  ['Llama, relu', 'llama', { hidden_act: 'relu' }],
  ['Mistral, window', 'mistral', { sliding_window: 4 }],
  ['Mistral, no window', 'mistral', { sliding_window: null }],
  ['Qwen2', 'qwen2', {}],
  ['Qwen2, window in some layers', 'qwen2', QWEN_WINDOW],
  ['Qwen3', 'qwen3', { head_dim: 16 }],
  ['Qwen3, biases, tied, window', 'qwen3', { ...TIED, ...QWEN_WINDOW, attention_bias: true }],
  ['Mixtral', 'mixtral', MIXTRAL],
  ['Mixtral, one expert a token', 'mixtral', { num_local_experts: 3, num_experts_per_tok: 1 }],
  ['Mixtral, window, tied', 'mixtral', { ...MIXTRAL, ...TIED, sliding_window: 4 }],
  ['Qwen2Moe, shared expert', 'qwen2_moe', QWEN2_MOE],
  ['Qwen2Moe, normalised', 'qwen2_moe', { ...QWEN2_MOE, norm_topk_prob: true }],
  ['Qwen2Moe, dense layers', 'qwen2_moe', { ...QWEN2_MOE, mlp_only_layers: [1] }],
  ['Qwen2Moe, every other layer', 'qwen2_moe', { ...QWEN2_MOE, decoder_sparse_step: 2 }],
  ['Qwen3Moe', 'qwen3_moe', { ...EXPERTS, head_dim: 16 }],
  ['Qwen3Moe, normalised', 'qwen3_moe', { ...EXPERTS, head_dim: 16, norm_topk_prob: true }],
  ['Qwen3Moe, dense layers', 'qwen3_moe', { ...EXPERTS, head_dim: 16, mlp_only_layers: [0] }],
  ['GraniteMoe', 'granitemoe', GRANITE],
  ['GraniteMoe, tied', 'granitemoe', { ...GRANITE, ...TIED }],
]

/** Name and config. */
export const FAMILY_CONFIGS: readonly (readonly [name: string, config: JsonObject])[] = CASES.map(
  ([name, model_type, fields]) => [name, { ...SMALL, model_type, ...fields }],
)
