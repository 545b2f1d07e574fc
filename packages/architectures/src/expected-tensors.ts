import type { JsonObject } from '@polygraft/tensor'
import { numel } from '@polygraft/tensor'
import { fact, field } from './_config.js'
import { type Dimensions, dimensionsOf, isSparseLayer, sizeOf } from './dimensions.js'
import type { Condition, Family, TensorRule } from './family.js'
import { roleOf, tensorName } from './role.js'

/**
 * Every tensor that a stock model of that config stores, with its shape, in model order: embedding, layer by layer, final norm,
 * head. A tied head is left out.
 * @throws ModelError "bad-config".
 */
export function expectedTensors(family: Family, config: JsonObject): Map<string, readonly number[]> {
  const dimensions = dimensionsOf(family, config)
  const rules = family.tensors.filter((rule) => holds(family, config, rule.when))
  const perLayer = rules.filter(isPerLayer)
  const first = rules.findIndex(isPerLayer)
  const outside = rules.filter((rule) => !isPerLayer(rule))
  const result = new Map<string, readonly number[]>()
  const add = (rule: TensorRule, layer?: number) => {
    const shape = rule.shape.map((dimension) => sizeOf(dimensions, dimension))
    result.set(tensorName(rule, layer), shape)
  }
  for (const rule of outside.slice(0, first)) add(rule)
  for (let layer = 0; layer < dimensions.numLayers; layer++) {
    const without = isSparseLayer(family, config, layer) ? 'dense_layer' : 'sparse_layer'
    const here = perLayer.filter(({ when }) => when !== without)
    addLayer(result, here, dimensions, layer)
  }
  for (const rule of outside.slice(first)) add(rule)
  return result
}

function isPerLayer(rule: TensorRule): boolean {
  return rule.name.includes('{layer}')
}

function isPerExpert(rule: TensorRule): boolean {
  return rule.name.includes('{expert}')
}

/** One layer's tensors; the expert rules together, expert by expert. */
function addLayer(
  result: Map<string, readonly number[]>,
  rules: readonly TensorRule[],
  dimensions: Dimensions,
  layer: number,
): void {
  const add = (rule: TensorRule, expert?: number) => {
    const shape = rule.shape.map((dimension) => sizeOf(dimensions, dimension))
    result.set(tensorName(rule, layer, expert), shape)
  }
  const experts = rules.filter(isPerExpert)
  const firstExpert = rules.findIndex(isPerExpert)
  const others = rules.filter((rule) => !isPerExpert(rule))
  for (const rule of experts.length ? others.slice(0, firstExpert) : others) add(rule)
  for (let expert = 0; expert < dimensions.numExperts; expert++) for (const rule of experts) add(rule, expert)
  if (experts.length) for (const rule of others.slice(firstExpert)) add(rule)
}

function holds(family: Family, config: JsonObject, when: Condition | undefined): boolean {
  switch (when) {
    case 'untied':
      return field(family, config, 'tie_word_embeddings') !== true
    case 'qkv_bias':
      return fact(family, config, family.qkvBias)
    case 'output_bias':
      return fact(family, config, family.outputBias)
    case 'mlp_bias':
      return fact(family, config, family.mlpBias)
    case 'qk_norm':
      return family.qkNorm
    default:
      return true
  }
}

/** Parameters of a model. Unit: parameters; a tied head counts once. */
export interface ParameterCount {
  readonly total: number
  /** Used for one token: all but the experts that its top-k leaves out. Equals `total` in a dense model. */
  readonly active: number
}

/**
 * Parameters of the model that `config` describes. An upcycled model has N + (E - 1) * 3HI * |S| + E * H * |S| for the N of its
 * dense model and its set S of mixture layers (E * g * H * |S| for experts in g parts), and for Qwen2-MoE moreover
 * (3 * shared + 1) * H * |S|.
 * @throws ModelError "bad-config".
 */
export function countParameters(family: Family, config: JsonObject): ParameterCount {
  const { numExperts, topK } = dimensionsOf(family, config)
  let total = 0
  let experts = 0
  for (const [name, shape] of expectedTensors(family, config)) {
    const elements = numel(shape)
    total += elements
    if (roleOf(family, name).group === 'expert') experts += elements
  }
  const idle = numExperts > topK ? (experts / numExperts) * (numExperts - topK) : 0
  return { total, active: total - idle }
}
