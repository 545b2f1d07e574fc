import type { Family } from '../family.js'
import { decoder, sparseFeedForward } from './_tensors.js'

/** Mixtral (arXiv:2401.04088): no bias, every layer a mixture, the gate always renormalises. */
export const mixtral: Family = {
  modelType: 'mixtral',
  architecture: 'MixtralForCausalLM',
  moe: true,
  targets: [],
  defaults: {
    vocab_size: 32000,
    num_key_value_heads: 8,
    hidden_act: 'silu',
    rms_norm_eps: 1e-5,
    rope_theta: 1000000,
    max_position_embeddings: 131072,
    tie_word_embeddings: false,
    sliding_window: null,
    num_local_experts: 8,
    num_experts_per_tok: 2,
  },
  window: 'always',
  qkNorm: false,
  qkvBias: false,
  outputBias: false,
  mlpBias: false,
  expertSizeField: 'intermediate_size',
  normTopkProb: true,
  tensors: decoder(sparseFeedForward('block_sparse_moe', { gate: 'w1', up: 'w3', down: 'w2' })),
}
