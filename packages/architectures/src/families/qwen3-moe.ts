import type { Family } from '../family.js'
import { decoder, denseFeedForward, sparseFeedForward } from './_tensors.js'

/** Qwen3-MoE (arXiv:2505.09388): norms on q and k, free head_dim, dense layers allowed, no shared expert. */
export const qwen3Moe: Family = {
  modelType: 'qwen3_moe',
  architecture: 'Qwen3MoeForCausalLM',
  moe: true,
  targets: [],
  defaults: {
    vocab_size: 151936,
    num_key_value_heads: 4,
    hidden_act: 'silu',
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    max_position_embeddings: 32768,
    tie_word_embeddings: false,
    attention_bias: false,
    use_sliding_window: false,
    sliding_window: 4096,
    num_experts: 128,
    num_experts_per_tok: 8,
    moe_intermediate_size: 768,
    decoder_sparse_step: 1,
    mlp_only_layers: [],
    norm_topk_prob: false,
  },
  window: 'switched',
  qkNorm: true,
  qkvBias: 'attention_bias',
  outputBias: 'attention_bias',
  mlpBias: false,
  expertSizeField: 'moe_intermediate_size',
  normTopkProb: 'norm_topk_prob',
  tensors: decoder([
    ...denseFeedForward,
    ...sparseFeedForward('mlp', { gate: 'gate_proj', up: 'up_proj', down: 'down_proj' }),
  ]),
}
