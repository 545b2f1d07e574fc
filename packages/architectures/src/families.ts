import type { JsonObject } from '@polygraft/tensor'
import { ModelError } from '@polygraft/tensor'
import { graniteMoe } from './families/granite-moe.js'
import { llama } from './families/llama.js'
import { mistral } from './families/mistral.js'
import { mixtral } from './families/mixtral.js'
import { qwen2 } from './families/qwen2.js'
import { qwen2Moe } from './families/qwen2-moe.js'
import { qwen3 } from './families/qwen3.js'
import { qwen3Moe } from './families/qwen3-moe.js'
import type { Family } from './family.js'

/** Every supported family. To add one: a file in `families/` and a line here. */
export const FAMILIES: readonly Family[] = [
  llama,
  mistral,
  qwen2,
  qwen3,
  mixtral,
  qwen2Moe,
  qwen3Moe,
  graniteMoe,
]

const GEMMA = 'its extra norms around the feed-forward block have no place in any stock mixture'

/** Families that people ask for and that cannot work, by `model_type`, and why. */
const REFUSED: Readonly<Record<string, string>> = {
  gemma:
    'its embedding scale and (1 + w) norms would have to be folded into the weights, which BF16 cannot hold exactly',
  gemma2: `${GEMMA}, and neither has its logit soft-capping`,
  gemma3: `${GEMMA}, and neither have its per-layer RoPE bases`,
  gemma3_text: `${GEMMA}, and neither have its per-layer RoPE bases`,
  olmo: 'its norms have no weights, which no stock mixture allows',
  olmo2: 'its norms follow the blocks, and OLMoE has them before: no stock mixture holds it',
  olmoe:
    'it normalises all heads of q and k together; no stock dense family has the same attention to come from',
  phi3: 'Phi-MoE uses biased LayerNorm and a sparse-mixer gate that does not renormalise: no stock mixture holds Phi-3',
  phimoe:
    'its sparse-mixer gate weighs experts in a way under which equal experts do not give the dense model',
  deepseek_v2: 'its latent attention and shared experts have no dense family to come from',
  deepseek_v3: 'its latent attention and shared experts have no dense family to come from',
}

/**
 * The family that a `config.json` names.
 * @throws ModelError "unsupported-family" with the supported ones, and the reason where one is known.
 */
export function familyOf(config: JsonObject): Family {
  const modelType = config.model_type
  const family = FAMILIES.find((each) => each.modelType === modelType)
  if (family) return family
  const reason =
    typeof modelType === 'string' && Object.hasOwn(REFUSED, modelType) ? REFUSED[modelType] : undefined
  throw new ModelError({
    code: 'unsupported-family',
    message: reason ? `${modelType} is not supported: ${reason}` : 'The model family is not supported',
    file: 'config.json',
    expected: `model_type one of ${FAMILIES.map((each) => each.modelType).join(', ')}`,
    received: modelType === undefined ? 'no model_type' : JSON.stringify(modelType),
    next: 'Use a checkpoint of a supported family, with the config.json that belongs to it.',
  })
}

/** The family with that `model_type`, or undefined. */
export function familyNamed(modelType: string): Family | undefined {
  return FAMILIES.find((each) => each.modelType === modelType)
}
