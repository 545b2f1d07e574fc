import type { JsonObject, Problem } from '@polygraft/tensor'
import { throwIfAny } from '@polygraft/tensor'
import { field } from './_config.js'
import type { Dimension, Family } from './family.js'

/** A config's sizes under one set of names, whatever its family calls them. Expert sizes are 0 in a dense family. */
export interface Dimensions {
  readonly vocabularySize: number
  readonly hiddenSize: number
  /** Of the feed-forward block of a dense layer. */
  readonly intermediateSize: number
  readonly numLayers: number
  readonly numHeads: number
  readonly numKeyValueHeads: number
  readonly headDim: number
  readonly numExperts: number
  readonly topK: number
  readonly expertIntermediateSize: number
  readonly sharedExpertSize: number
}

// Far above any real model. A hostile config must not make us list billions of tensors.
const MAX_LAYERS = 10_000
const MAX_EXPERTS = 65_536
const MAX_SIZE = 2 ** 32
const MAX_EXPERTS_IN_ALL = 2 ** 20

/**
 * The sizes that `config` gives, with the family's meaning of absent fields.
 * @throws ModelError "bad-config" listing every field that is missing, or no whole number in range.
 */
export function dimensionsOf(family: Family, config: JsonObject): Dimensions {
  const problems: Problem[] = []
  const size = (names: readonly string[], otherwise?: number, min = 1, max = MAX_SIZE): number => {
    const name = names.find((each) => field(family, config, each) !== undefined)
    const value = name === undefined ? otherwise : field(family, config, name)
    if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
    // NaN: derived from a field that is listed already.
    if (!Number.isNaN(value)) problems.push(badSize(names[0]!, value, min, max))
    return Number.NaN
  }
  const hiddenSize = size(['hidden_size'])
  const numHeads = size(['num_attention_heads'])
  const intermediateSize = size(['intermediate_size'])
  const dimensions = {
    vocabularySize: size(['vocab_size']),
    hiddenSize,
    intermediateSize,
    numLayers: size(['num_hidden_layers'], undefined, 1, MAX_LAYERS),
    numHeads,
    numKeyValueHeads: size(['num_key_value_heads'], numHeads),
    headDim: size(['head_dim'], Math.floor(hiddenSize / numHeads)),
    numExperts: family.moe ? size(expertFields(config), undefined, 1, MAX_EXPERTS) : 0,
    topK: family.moe ? size(['num_experts_per_tok'], undefined, 1, MAX_EXPERTS) : 0,
    expertIntermediateSize: family.moe ? size([family.expertSizeField ?? 'intermediate_size']) : 0,
    sharedExpertSize: hasSharedExpert(family) ? size(['shared_expert_intermediate_size'], undefined, 0) : 0,
  }
  if (dimensions.numLayers * dimensions.numExperts > MAX_EXPERTS_IN_ALL)
    problems.push(badSize('num_experts', dimensions.numExperts, 1, MAX_EXPERTS_IN_ALL / dimensions.numLayers))
  throwIfAny(problems)
  return dimensions
}

/** Both spellings are in use for every family; the one that the config itself holds comes first. */
function expertFields(config: JsonObject): readonly string[] {
  const names = ['num_local_experts', 'num_experts']
  return Object.hasOwn(config, 'num_experts') ? names.reverse() : names
}

/** Whether the family's sparse layers have a shared expert beside the routed ones. */
export function hasSharedExpert(family: Family): boolean {
  return family.tensors.some(({ group }) => group === 'shared_expert')
}

function badSize(name: string, value: unknown, min: number, max: number): Problem {
  return {
    code: 'bad-config',
    message: `Config field ${name} is ${value === undefined ? 'missing' : 'not usable'}`,
    file: 'config.json',
    expected: `a whole number from ${min} to ${max}`,
    received: value === undefined ? 'nothing' : JSON.stringify(value),
    next: 'Use the config.json that belongs to these weights.',
  }
}

/** What q k^T is multiplied by where a config does not say. */
export function attentionScale(headDim: number): number {
  return headDim ** -0.5
}

/** The size that a letter of a shape stands for. */
export function sizeOf(dimensions: Dimensions, dimension: Dimension): number {
  switch (dimension) {
    case 'V':
      return dimensions.vocabularySize
    case 'H':
      return dimensions.hiddenSize
    case 'I':
      return dimensions.intermediateSize
    case 'M':
      return dimensions.expertIntermediateSize
    case '2M':
      return 2 * dimensions.expertIntermediateSize
    case 'S':
      return dimensions.sharedExpertSize
    case 'E':
      return dimensions.numExperts
    case 'Q':
      return dimensions.numHeads * dimensions.headDim
    case 'K':
      return dimensions.numKeyValueHeads * dimensions.headDim
    case 'D':
      return dimensions.headDim
    default:
      return dimension
  }
}

/**
 * Whether layer `layer` of a mixture holds experts: not named in `mlp_only_layers`, and every `decoder_sparse_step`-th.
 * False for dense families.
 */
export function isSparseLayer(family: Family, config: JsonObject, layer: number): boolean {
  if (!family.moe) return false
  const dense = field(family, config, 'mlp_only_layers')
  const step = field(family, config, 'decoder_sparse_step')
  if (!Object.hasOwn(family.defaults, 'mlp_only_layers')) return true
  if (Array.isArray(dense) && dense.includes(layer)) return false
  return (layer + 1) % (typeof step === 'number' && step >= 1 ? step : 1) === 0
}
