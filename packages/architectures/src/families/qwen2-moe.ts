import type { Family, TensorRule } from '../family.js'
import { decoder, denseFeedForward, sparseFeedForward } from './_tensors.js'

const mlp = 'model.layers.{layer}.mlp'
const shared = `${mlp}.shared_expert`

const sharedExpert: readonly TensorRule[] = [
  {
    name: `${shared}.gate_proj.weight`,
    group: 'shared_expert',
    part: 'gate',
    shape: ['S', 'H'],
    when: 'sparse_layer',
  },
  {
    name: `${shared}.up_proj.weight`,
    group: 'shared_expert',
    part: 'up',
    shape: ['S', 'H'],
    when: 'sparse_layer',
  },
  {
    name: `${shared}.down_proj.weight`,
    group: 'shared_expert',
    part: 'down',
    shape: ['H', 'S'],
    when: 'sparse_layer',
  },
  {
    name: `${mlp}.shared_expert_gate.weight`,
    group: 'shared_expert',
    part: 'scale',
    shape: [1, 'H'],
    when: 'sparse_layer',
  },
]

/** Qwen1.5-MoE and Qwen2-MoE (arXiv:2407.10671): optional q, k, v bias, dense layers allowed, always a shared expert. */
export const qwen2Moe: Family = {
  modelType: 'qwen2_moe',
  architecture: 'Qwen2MoeForCausalLM',
  moe: true,
  targets: [],
  defaults: {
    vocab_size: 151936,
    num_key_value_heads: 16,
    hidden_act: 'silu',
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    max_position_embeddings: 32768,
    tie_word_embeddings: false,
    qkv_bias: true,
    use_sliding_window: false,
    sliding_window: 4096,
    max_window_layers: 28,
    num_experts: 60,
    num_experts_per_tok: 4,
    moe_intermediate_size: 1408,
    shared_expert_intermediate_size: 5632,
    decoder_sparse_step: 1,
    mlp_only_layers: [],
    norm_topk_prob: false,
  },
  window: 'layers',
  qkNorm: false,
  qkvBias: 'qkv_bias',
  outputBias: false,
  mlpBias: false,
  expertSizeField: 'moe_intermediate_size',
  normTopkProb: 'norm_topk_prob',
  // transformers 4 refuses heads * head_dim != hidden_size here.
  fixedHeadDim: true,
  tensors: decoder([
    ...denseFeedForward,
    ...sparseFeedForward('mlp', { gate: 'gate_proj', up: 'up_proj', down: 'down_proj' }),
    ...sharedExpert,
  ]),
}
