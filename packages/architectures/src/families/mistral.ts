import type { Family } from '../family.js'
import { decoder, denseFeedForward } from './_tensors.js'

/** Mistral 7B and its kin (arXiv:2310.06825). An absent `sliding_window` means 4096, not none. */
export const mistral: Family = {
  modelType: 'mistral',
  architecture: 'MistralForCausalLM',
  moe: false,
  targets: ['mixtral', 'qwen2_moe', 'granitemoe'],
  defaults: {
    vocab_size: 32000,
    num_key_value_heads: 8,
    hidden_act: 'silu',
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    max_position_embeddings: 131072,
    tie_word_embeddings: false,
    sliding_window: 4096,
  },
  window: 'always',
  qkNorm: false,
  qkvBias: false,
  outputBias: false,
  mlpBias: false,
  tensors: decoder(denseFeedForward),
}
