import type { Family } from '../family.js'
import { decoder, denseFeedForward } from './_tensors.js'

/** Qwen3 (arXiv:2505.09388): norms on q and k, and a head_dim that need not be hidden_size / heads. */
export const qwen3: Family = {
  modelType: 'qwen3',
  architecture: 'Qwen3ForCausalLM',
  moe: false,
  targets: ['qwen3_moe'],
  defaults: {
    vocab_size: 151936,
    num_key_value_heads: 32,
    head_dim: 128,
    hidden_act: 'silu',
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    max_position_embeddings: 32768,
    tie_word_embeddings: false,
    attention_bias: false,
    use_sliding_window: false,
    sliding_window: 4096,
    max_window_layers: 28,
  },
  window: 'layers',
  qkNorm: true,
  qkvBias: 'attention_bias',
  outputBias: 'attention_bias',
  mlpBias: false,
  tensors: decoder(denseFeedForward),
}
