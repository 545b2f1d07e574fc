import type { JsonObject } from '@polygraft/tensor'

/**
 * Sizes that a tensor's shape is made of. V vocabulary, H hidden, I dense intermediate, M intermediate of one routed expert,
 * 2M twice that (gate and up in one), S intermediate of the shared expert, E experts, Q heads * head_dim,
 * K key-value heads * head_dim, D head_dim.
 */
export type Dimension = 'V' | 'H' | 'I' | 'M' | '2M' | 'S' | 'E' | 'Q' | 'K' | 'D' | 1

/** What a tensor does in the model. `buffer` is recomputed on load and never stored by us; `other` is not of this family. */
export type Group =
  | 'embedding'
  | 'head'
  | 'norm'
  | 'attention'
  | 'ffn'
  | 'expert'
  | 'shared_expert'
  | 'router'
  | 'buffer'
  | 'other'

/** Which of its group's tensors one is. `gate_up` is both in one tensor; `scale` is the shared expert's sigmoid gate. */
export type Part =
  | 'gate'
  | 'up'
  | 'gate_up'
  | 'down'
  | 'gate_bias'
  | 'up_bias'
  | 'down_bias'
  | 'scale'
  | 'q'
  | 'k'
  | 'v'
  | 'o'
  | 'q_bias'
  | 'k_bias'
  | 'v_bias'
  | 'o_bias'
  | 'q_norm'
  | 'k_norm'
  | 'attention_norm'
  | 'ffn_norm'
  | 'final_norm'

/** When a tensor is there: a property of the family or of the config, or whether its layer holds experts. */
export type Condition =
  | 'untied'
  | 'qkv_bias'
  | 'output_bias'
  | 'mlp_bias'
  | 'qk_norm'
  | 'dense_layer'
  | 'sparse_layer'

/**
 * One line of a family's table of tensors. `{layer}` and `{expert}` in the name stand for indices; an expert tensor without
 * `{expert}` holds all of the layer's.
 */
export interface TensorRule {
  readonly name: string
  readonly group: Group
  readonly part?: Part
  readonly shape: readonly Dimension[]
  readonly when?: Condition
}

/** Fixed by the family, or the name of the boolean config field that decides. */
export type Fact = boolean | string

/**
 * How a family reads its window fields. `never`: ignores them; `always`: `sliding_window` holds for every layer;
 * `switched`: the same, once `use_sliding_window` is true; `layers`: moreover only for the layers that `layer_types`, or
 * else `max_window_layers`, names.
 */
export type WindowRule = 'never' | 'always' | 'switched' | 'layers'

/** A model family as data: what its config fields mean when absent, and which tensors it has. */
export interface Family {
  /** `model_type` in config.json. */
  readonly modelType: string
  /** The class in `architectures`. */
  readonly architecture: string
  readonly moe: boolean
  /** Dense families: the `model_type`s of the mixtures that can hold it, the preferred one first. */
  readonly targets: readonly string[]
  /**
   * What a config that lacks the field means (the defaults of the family's class in transformers). No token ids: transformers 5
   * takes only written ones for generation, so writing a default out would change where a model stops.
   */
  readonly defaults: JsonObject
  readonly window: WindowRule
  readonly qkNorm: boolean
  readonly qkvBias: Fact
  readonly outputBias: Fact
  readonly mlpBias: Fact
  /** Mixtures: the config field that holds one expert's intermediate size. */
  readonly expertSizeField?: string
  /** Mixtures: whether the gate renormalises the top-k weights, or the field that decides. */
  readonly normTopkProb?: Fact
  /** Mixtures: whether head_dim must be hidden_size / heads. */
  readonly fixedHeadDim?: boolean
  /** Every tensor in model order, layer by layer. */
  readonly tensors: readonly TensorRule[]
}
