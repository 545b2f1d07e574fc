import type { Family, TensorRule } from '../family.js'
import { decoder, denseFeedForward } from './_tensors.js'

const mlp = 'model.layers.{layer}.mlp'

const biases: readonly TensorRule[] = [
  { name: `${mlp}.gate_proj.bias`, group: 'ffn', part: 'gate_bias', shape: ['I'], when: 'mlp_bias' },
  { name: `${mlp}.up_proj.bias`, group: 'ffn', part: 'up_bias', shape: ['I'], when: 'mlp_bias' },
  { name: `${mlp}.down_proj.bias`, group: 'ffn', part: 'down_bias', shape: ['H'], when: 'mlp_bias' },
]

/** Llama 1, 2, 3 and everything that borrowed the class (arXiv:2302.13971). */
export const llama: Family = {
  modelType: 'llama',
  architecture: 'LlamaForCausalLM',
  moe: false,
  targets: ['mixtral', 'qwen2_moe', 'granitemoe'],
  defaults: {
    vocab_size: 32000,
    hidden_act: 'silu',
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    max_position_embeddings: 2048,
    tie_word_embeddings: false,
    attention_bias: false,
    mlp_bias: false,
  },
  window: 'never',
  qkNorm: false,
  qkvBias: 'attention_bias',
  outputBias: 'attention_bias',
  mlpBias: 'mlp_bias',
  tensors: decoder([...denseFeedForward, ...biases]),
}
