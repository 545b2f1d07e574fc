import type { Family, TensorRule } from '../family.js'
import { decoder } from './_tensors.js'

const block = 'model.layers.{layer}.block_sparse_moe'

/** All experts of a layer in two tensors; of each expert the gate's rows come before the up projection's. */
const fused: readonly TensorRule[] = [
  {
    name: `${block}.input_linear.weight`,
    group: 'expert',
    part: 'gate_up',
    shape: ['E', '2M', 'H'],
    when: 'sparse_layer',
  },
  {
    name: `${block}.output_linear.weight`,
    group: 'expert',
    part: 'down',
    shape: ['E', 'H', 'M'],
    when: 'sparse_layer',
  },
  { name: `${block}.router.layer.weight`, group: 'router', shape: ['E', 'H'], when: 'sparse_layer' },
]

/** Granite 3 MoE (IBM): every layer a mixture, fused experts, four multipliers that are 1 (or head_dim^-0.5) elsewhere. */
export const graniteMoe: Family = {
  modelType: 'granitemoe',
  architecture: 'GraniteMoeForCausalLM',
  moe: true,
  targets: [],
  defaults: {
    vocab_size: 32000,
    hidden_act: 'silu',
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    max_position_embeddings: 2048,
    tie_word_embeddings: false,
    attention_bias: false,
    embedding_multiplier: 1,
    logits_scaling: 1,
    residual_multiplier: 1,
    attention_multiplier: 1,
    num_local_experts: 8,
    num_experts_per_tok: 2,
  },
  window: 'never',
  qkNorm: false,
  qkvBias: 'attention_bias',
  outputBias: 'attention_bias',
  mlpBias: false,
  expertSizeField: 'intermediate_size',
  normTopkProb: true,
  // transformers 4 takes no other.
  fixedHeadDim: true,
  tensors: decoder(fused),
}
