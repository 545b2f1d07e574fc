import type { Family } from '../family.js'
import { decoder, denseFeedForward } from './_tensors.js'

/** Qwen2 and Qwen2.5 (arXiv:2407.10671, arXiv:2412.15115): q, k and v carry a bias, o does not. */
export const qwen2: Family = {
  modelType: 'qwen2',
  architecture: 'Qwen2ForCausalLM',
  moe: false,
  targets: ['qwen2_moe', 'granitemoe'],
  defaults: {
    vocab_size: 151936,
    num_key_value_heads: 32,
    hidden_act: 'silu',
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    max_position_embeddings: 32768,
    tie_word_embeddings: false,
    use_sliding_window: false,
    sliding_window: 4096,
    max_window_layers: 28,
  },
  window: 'layers',
  qkNorm: false,
  qkvBias: true,
  outputBias: false,
  mlpBias: false,
  tensors: decoder(denseFeedForward),
}
