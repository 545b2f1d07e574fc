import type { JsonObject, JsonValue, Problem } from '@polygraft/tensor'
import { fact, field, isObject } from './_config.js'
import { ropeOf } from './_rope.js'
import { describeWindows, windowsOf } from './_window.js'
import { dimensionsOf } from './dimensions.js'
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
  return Object.keys(left)
    .filter((name) => left[name] !== right[name])
    .map((name) => ({
      code: 'config-mismatch',
      message: `The configs disagree on ${name}`,
      file: 'config.json',
      expected: left[name]!,
      received: right[name]!,
      next: 'Use checkpoints that come from the same base.',
    }))
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
    'sliding window': describeWindows(windowsOf(family, config, sizes.numLayers)),
    'bias on q, k, v': String(fact(family, config, family.qkvBias)),
    "bias on attention's output": String(fact(family, config, family.outputBias)),
    'bias in the feed-forward block': String(fact(family, config, family.mlpBias)),
    'norms on q and k': String(family.qkNorm),
  }
}

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
