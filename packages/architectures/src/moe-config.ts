import type { JsonObject, JsonValue, Problem } from '@polygraft/tensor'
import { ModelError } from '@polygraft/tensor'
import { fact } from './_config.js'
import { ropeFields, ropeOf } from './_rope.js'
import { windowsOf } from './_window.js'
import { type Dimensions, dimensionsOf } from './dimensions.js'
import { familyOf } from './families.js'
import type { Family } from './family.js'

export interface MoeConfigOptions {
  readonly numExperts: number
  readonly topK: number
  /** Whether the gate renormalises the top-k weights; without, upcycling does not preserve the function. Default true. */
  readonly normTopkProb?: boolean
}

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
 * @throws ModelError "unsupported-family", "bad-config"; "target-cannot-hold" for `normTopkProb: false` in Mixtral.
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

function expertFields(target: Family, dimensions: Dimensions, options: MoeConfigOptions): JsonObject {
  const { numExperts, topK, normTopkProb = true } = options
  if (target.normTopkProb === true && !normTopkProb) throw new ModelError(alwaysNormalises(target))
  const fields: Record<string, JsonValue> = {
    num_experts: numExperts,
    num_local_experts: numExperts,
    num_experts_per_tok: topK,
    output_router_logits: false,
    router_aux_loss_coef: ROUTER_AUX_LOSS_COEF,
    [target.expertSizeField ?? 'intermediate_size']: dimensions.intermediateSize,
  }
  if (typeof target.normTopkProb === 'string') fields[target.normTopkProb] = normTopkProb
  if (Object.hasOwn(target.defaults, 'mlp_only_layers')) {
    fields.mlp_only_layers = []
    fields.decoder_sparse_step = 1
  }
  if (Object.hasOwn(target.defaults, 'shared_expert_intermediate_size'))
    fields.shared_expert_intermediate_size = SHARED_EXPERT_PLACEHOLDER
  return fields
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
