import type { JsonObject, JsonValue, Problem } from '@polygraft/tensor'
import { throwIfAny } from '@polygraft/tensor'
import { fact } from './_config.js'
import { ropeFields, ropeOf } from './_rope.js'
import { windowsOf } from './_window.js'
import { attentionScale, type Dimensions, dimensionsOf, hasSharedExpert } from './dimensions.js'
import { familyOf } from './families.js'
import type { Family } from './family.js'

export interface MoeConfigOptions {
  /** Whole copies E of each feed-forward block. */
  readonly numExperts: number
  /** Whole copies k for a token. */
  readonly topK: number
  /** Parts g that each copy is cut into: E * g experts of size I / g, k * g of them for a token. Default 1. */
  readonly granularity?: number
  /** Layers that keep their dense block. Default none. */
  readonly denseLayers?: readonly number[]
  /** Where the target has a shared expert: zeros, or as large as the dense block. Default `placeholder`. */
  readonly sharedExpert?: SharedExpert
  /** Whether the gate renormalises the top-k weights; without, upcycling does not preserve the function. Default true. */
  readonly normTopkProb?: boolean
}

/** What a shared expert is: zeros that the format asks for, or the dense block itself. */
export type SharedExpert = 'placeholder' | 'derived'

/**
 * Intermediate size of the shared expert of zeros that Qwen2-MoE must have. It adds exactly nothing and, its gradients being zero
 * too, stays so in training. 0 would do for transformers and vLLM, but llama.cpp reads 0 as "as large as an expert" and
 * zero-size parameters trip some trainers; 32 is divisible by any usual tensor-parallel degree and by quantisation blocks of 32.
 */
export const SHARED_EXPERT_PLACEHOLDER = 32

// METHOD: the balance loss of continued pre-training, which trainers take from this field once they ask for router logits.
const ROUTER_AUX_LOSS_COEF = 0.01

/**
 * The `config.json` of the mixture that a dense model becomes. Both transformers majors read it (4.57 and 5.18): each value that
 * they spell differently is written in both spellings, and every default of the dense class is written out, since the classes'
 * defaults differ (RoPE theta, eps, window, heads). Unknown keys are kept, but for `auto_map`, which names the dense model's code.
 * @throws ModelError "unsupported-family", "bad-config"; "target-cannot-hold" for what the target has no place for: a gate that does not
 * renormalise, dense layers, a shared expert; "bad-option" for a granularity that does not divide the intermediate size.
 */
export function moeConfig(config: JsonObject, target: Family, options: MoeConfigOptions): JsonObject {
  const dense = familyOf(config)
  const dimensions = dimensionsOf(dense, config)
  const { auto_map: _, ...kept } = config
  return sorted({
    ...dense.defaults,
    ...kept,
    architectures: [target.architecture],
    model_type: target.modelType,
    num_key_value_heads: dimensions.numKeyValueHeads,
    head_dim: dimensions.headDim,
    ...ropeFields(ropeOf(dense, config)),
    ...windowFields(dense, config, target, dimensions),
    ...biasFields(dense, config, target),
    ...multiplierFields(target, dimensions),
    ...expertFields(target, dimensions, options),
    ...dtypeFields(config),
  })
}

/** In the order of Hugging Face's own files. */
function sorted(config: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
}

/** The dense model's window, which is the same in every layer (`moeTarget` sees to that), as the target spells it. */
function windowFields(
  dense: Family,
  config: JsonObject,
  target: Family,
  { numLayers }: Dimensions,
): JsonObject {
  const window = windowsOf(dense, config, numLayers)[0] ?? null
  if (target.window === 'never') return { use_sliding_window: false, sliding_window: null }
  if (target.window === 'always') return { sliding_window: window }
  const kind = window === null ? 'full_attention' : 'sliding_attention'
  return {
    use_sliding_window: window !== null,
    sliding_window: window,
    max_window_layers: window === null ? numLayers : 0,
    layer_types: Array.from({ length: numLayers }, () => kind),
  }
}

function biasFields(dense: Family, config: JsonObject, target: Family): JsonObject {
  return typeof target.qkvBias === 'string' ? { [target.qkvBias]: fact(dense, config, dense.qkvBias) } : {}
}

/** Granite's multipliers at the values that the other families have built in. */
function multiplierFields(target: Family, { headDim }: Dimensions): JsonObject {
  if (!Object.hasOwn(target.defaults, 'attention_multiplier')) return {}
  return {
    attention_multiplier: attentionScale(headDim),
    embedding_multiplier: 1,
    logits_scaling: 1,
    residual_multiplier: 1,
  }
}

function expertFields(target: Family, dimensions: Dimensions, options: MoeConfigOptions): JsonObject {
  throwIfAny(optionProblems(target, dimensions, options))
  const { numExperts, topK, granularity = 1, normTopkProb = true, denseLayers = [] } = options
  const fields: Record<string, JsonValue> = {
    num_experts: numExperts * granularity,
    num_local_experts: numExperts * granularity,
    num_experts_per_tok: topK * granularity,
    output_router_logits: false,
    router_aux_loss_coef: ROUTER_AUX_LOSS_COEF,
    [target.expertSizeField ?? 'intermediate_size']: dimensions.intermediateSize / granularity,
  }
  if (typeof target.normTopkProb === 'string') fields[target.normTopkProb] = normTopkProb
  if (holdsDenseLayers(target)) {
    fields.mlp_only_layers = [...denseLayers].sort((a, b) => a - b)
    fields.decoder_sparse_step = 1
  }
  if (hasSharedExpert(target))
    fields.shared_expert_intermediate_size =
      options.sharedExpert === 'derived' ? dimensions.intermediateSize : SHARED_EXPERT_PLACEHOLDER
  return fields
}

function holdsDenseLayers({ defaults }: Family): boolean {
  return Object.hasOwn(defaults, 'mlp_only_layers')
}

/** What of the options the target has no place for, or the sizes do not allow. */
function optionProblems(
  target: Family,
  { intermediateSize, numLayers }: Dimensions,
  { normTopkProb = true, granularity = 1, denseLayers = [], sharedExpert }: MoeConfigOptions,
): Problem[] {
  const outside = denseLayers.filter((layer) => !(Number.isInteger(layer) && layer >= 0 && layer < numLayers))
  const isWhole = Number.isInteger(granularity) && granularity >= 1 && intermediateSize % granularity === 0
  return [
    ...(target.normTopkProb === true && !normTopkProb ? [alwaysNormalises(target)] : []),
    ...(isWhole ? [] : [badGranularity(granularity, intermediateSize)]),
    ...(denseLayers.length > 0 && !holdsDenseLayers(target) ? [noDenseLayers(target)] : []),
    ...(outside.length > 0 ? [noSuchLayers(outside, numLayers)] : []),
    ...(new Set(denseLayers).size >= numLayers ? [allDense(numLayers)] : []),
    ...(sharedExpert === 'derived' && !hasSharedExpert(target) ? [noSharedExpert(target)] : []),
  ]
}

function badGranularity(granularity: number, size: number): Problem {
  const divisors = [2, 3, 4, 5, 6, 7, 8, 12, 16, 32, 64].filter((each) => size % each === 0)
  return {
    code: 'bad-option',
    message: 'The feed-forward block cannot be cut into that many equal parts',
    expected: `a divisor of the intermediate size ${size}, such as ${divisors.join(', ')}`,
    received: String(granularity),
    next: 'Change granularity.',
  }
}

function noDenseLayers(target: Family): Problem {
  return {
    code: 'target-cannot-hold',
    message: `${target.modelType} has experts in every layer`,
    received: 'layers to be kept dense',
    next: 'Choose qwen2_moe (or qwen3_moe for Qwen3) as the target; or leave the option out, and do not train the experts of those layers: equal experts compute what the dense block does.',
  }
}

function noSuchLayers(layers: readonly number[], numLayers: number): Problem {
  return {
    code: 'bad-option',
    message: 'Layers are to be kept dense that the model does not have',
    expected: `0 to ${numLayers - 1}`,
    received: layers.join(', '),
    next: 'Change denseLayers.',
  }
}

function allDense(numLayers: number): Problem {
  return {
    code: 'bad-option',
    message: 'Every layer is to be kept dense, so that nothing becomes a mixture',
    expected: `fewer than ${numLayers} layers`,
    received: 'all of them',
    next: 'Change denseLayers.',
  }
}

function noSharedExpert(target: Family): Problem {
  return {
    code: 'target-cannot-hold',
    message: `${target.modelType} has no shared expert`,
    received: 'sharedExpert: derived',
    next: 'Choose qwen2_moe as the target.',
  }
}

function alwaysNormalises(target: Family): Problem {
  return {
    code: 'target-cannot-hold',
    message: `${target.modelType} always renormalises the weights of the chosen experts`,
    expected: 'normTopkProb: true',
    received: 'normTopkProb: false',
    next: 'Leave renormalisation on, or choose a target with norm_topk_prob (qwen2_moe, qwen3_moe).',
  }
}

function dtypeFields({ dtype, torch_dtype }: JsonObject): JsonObject {
  const value = dtype ?? torch_dtype
  return typeof value === 'string' ? { dtype: value, torch_dtype: value } : {}
}
