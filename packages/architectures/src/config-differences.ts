import type { JsonObject, JsonValue, Problem } from '@polygraft/tensor'
import { fact, field, isObject } from './_config.js'
import { ropeOf } from './_rope.js'
import { describeWindows, windowsOf } from './_window.js'
import { attentionScale, dimensionsOf } from './dimensions.js'
import { familyOf } from './families.js'

/**
 * The config guard: where two checkpoints compute different functions from equal weights, so that a difference of their weights
 * means nothing. Compares meanings, not spellings: absent fields take their family's default, `rope_parameters` equals
 * `rope_theta` with `rope_scaling`, a mixture's expert size equals the dense intermediate size. Vocabulary, tied embeddings,
 * maximum length and names of classes may differ. `expected` is a's value, `received` b's; empty when they agree.
 * @throws ModelError "unsupported-family" or "bad-config" for either of them.
 */
export function configDifferences(a: JsonObject, b: JsonObject): readonly Problem[] {
  const [left, right] = [meaningOf(a), meaningOf(b)]
  // A mixture that has all attention biases or none holds a dense model with some: the new ones are zeros.
  const filled = hasOneBiasField(a) !== hasOneBiasField(b)
  return Object.keys(left)
    .filter((name) => left[name] !== right[name] && !(filled && name === OUTPUT_BIAS))
    .map((name) => ({
      code: 'config-mismatch',
      message: `The configs disagree on ${name}`,
      file: 'config.json',
      expected: left[name]!,
      received: right[name]!,
      next: 'Use checkpoints that come from the same base.',
    }))
}

const OUTPUT_BIAS = "bias on attention's output"

function hasOneBiasField(config: JsonObject): boolean {
  const { moe, qkvBias, outputBias } = familyOf(config)
  return moe && typeof qkvBias === 'string' && qkvBias === outputBias
}

/** What the guard compares, each as text. */
function meaningOf(config: JsonObject): Record<string, string> {
  const family = familyOf(config)
  const sizes = dimensionsOf(family, config)
  const rope = ropeOf(family, config)
  return {
    hidden_size: String(sizes.hiddenSize),
    intermediate_size: String(family.moe ? sizes.expertIntermediateSize : sizes.intermediateSize),
    num_hidden_layers: String(sizes.numLayers),
    num_attention_heads: String(sizes.numHeads),
    num_key_value_heads: String(sizes.numKeyValueHeads),
    head_dim: String(sizes.headDim),
    hidden_act: activation(field(family, config, 'hidden_act')),
    rms_norm_eps: String(field(family, config, 'rms_norm_eps')),
    'rope theta': String(rope.theta),
    'rope scaling': canonical(rope.scaling),
    'attention scale': scaleOf(field(family, config, 'attention_multiplier'), sizes.headDim),
    'embedding, residual and logits multipliers': MULTIPLIERS.map((name) =>
      Number(field(family, config, name) ?? 1),
    ).join(', '),
    'sliding window': describeWindows(windowsOf(family, config, sizes.numLayers)),
    'bias on q, k, v': String(fact(family, config, family.qkvBias)),
    [OUTPUT_BIAS]: String(fact(family, config, family.outputBias)),
    'bias in the feed-forward block': String(fact(family, config, family.mlpBias)),
    'norms on q and k': String(family.qkNorm),
  }
}

/** As text: Granite's config says it, every other family has it built in. */
function scaleOf(multiplier: JsonValue | undefined, headDim: number): string {
  const usual = attentionScale(headDim)
  const scale = Number(multiplier ?? usual)
  return Math.abs(scale / usual - 1) < 1e-12 ? 'head_dim^-0.5' : String(scale)
}

/** Granite's; all other families are without, which is the same as 1. */
const MULTIPLIERS = ['embedding_multiplier', 'residual_multiplier', 'logits_scaling']

/** transformers has two names for one function. */
function activation(name: JsonValue | undefined): string {
  return name === 'swish' ? 'silu' : String(name)
}

/** JSON with sorted keys. */
function canonical(value: JsonValue): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(', ')}]`
  if (!isObject(value)) return JSON.stringify(value)
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return `{${entries.map(([key, each]) => `${key}: ${canonical(each)}`).join(', ')}}`
}
