import type { TensorRule } from '../family.js'

const layer = 'model.layers.{layer}'
const attention = `${layer}.self_attn`

/** The tensors of a Llama-like decoder, around whatever its feed-forward block is made of. */
export function decoder(feedForward: readonly TensorRule[]): readonly TensorRule[] {
  return [
    { name: 'model.embed_tokens.weight', group: 'embedding', shape: ['V', 'H'] },
    { name: `${layer}.input_layernorm.weight`, group: 'norm', part: 'attention_norm', shape: ['H'] },
    { name: `${attention}.q_proj.weight`, group: 'attention', part: 'q', shape: ['Q', 'H'] },
    { name: `${attention}.k_proj.weight`, group: 'attention', part: 'k', shape: ['K', 'H'] },
    { name: `${attention}.v_proj.weight`, group: 'attention', part: 'v', shape: ['K', 'H'] },
    { name: `${attention}.o_proj.weight`, group: 'attention', part: 'o', shape: ['H', 'Q'] },
    { name: `${attention}.q_proj.bias`, group: 'attention', part: 'q_bias', shape: ['Q'], when: 'qkv_bias' },
    { name: `${attention}.k_proj.bias`, group: 'attention', part: 'k_bias', shape: ['K'], when: 'qkv_bias' },
    { name: `${attention}.v_proj.bias`, group: 'attention', part: 'v_bias', shape: ['K'], when: 'qkv_bias' },
    {
      name: `${attention}.o_proj.bias`,
      group: 'attention',
      part: 'o_bias',
      shape: ['H'],
      when: 'output_bias',
    },
    { name: `${attention}.q_norm.weight`, group: 'norm', part: 'q_norm', shape: ['D'], when: 'qk_norm' },
    { name: `${attention}.k_norm.weight`, group: 'norm', part: 'k_norm', shape: ['D'], when: 'qk_norm' },
    { name: `${layer}.post_attention_layernorm.weight`, group: 'norm', part: 'ffn_norm', shape: ['H'] },
    ...feedForward,
    { name: 'model.norm.weight', group: 'norm', part: 'final_norm', shape: ['H'] },
    { name: 'lm_head.weight', group: 'head', shape: ['V', 'H'], when: 'untied' },
  ]
}

/** The gated feed-forward block of a dense layer. */
export const denseFeedForward: readonly TensorRule[] = [
  {
    name: `${layer}.mlp.gate_proj.weight`,
    group: 'ffn',
    part: 'gate',
    shape: ['I', 'H'],
    when: 'dense_layer',
  },
  { name: `${layer}.mlp.up_proj.weight`, group: 'ffn', part: 'up', shape: ['I', 'H'], when: 'dense_layer' },
  {
    name: `${layer}.mlp.down_proj.weight`,
    group: 'ffn',
    part: 'down',
    shape: ['H', 'I'],
    when: 'dense_layer',
  },
]

/** A router and its experts, for a family that names the three matrices of an expert as given. */
export function sparseFeedForward(
  block: string,
  names: { readonly gate: string; readonly up: string; readonly down: string },
): readonly TensorRule[] {
  const expert = `${layer}.${block}.experts.{expert}`
  return [
    { name: `${layer}.${block}.gate.weight`, group: 'router', shape: ['E', 'H'], when: 'sparse_layer' },
    {
      name: `${expert}.${names.gate}.weight`,
      group: 'expert',
      part: 'gate',
      shape: ['M', 'H'],
      when: 'sparse_layer',
    },
    {
      name: `${expert}.${names.up}.weight`,
      group: 'expert',
      part: 'up',
      shape: ['M', 'H'],
      when: 'sparse_layer',
    },
    {
      name: `${expert}.${names.down}.weight`,
      group: 'expert',
      part: 'down',
      shape: ['H', 'M'],
      when: 'sparse_layer',
    },
  ]
}
