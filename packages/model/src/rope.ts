import { dimensionsOf, type Family, ropeOf } from '@polygraft/architectures'
import type { JsonObject, JsonValue } from '@polygraft/tensor'
import { ModelError } from '@polygraft/tensor'

/** The rotation of one head by position (RoPE, arXiv:2104.09864), whatever kind of scaling the config names. */
export interface Rotation {
  /** Rotated dimensions, R; the rest of the head passes. */
  readonly dimensions: number
  /** The longest sequence that the model is made for, scaling included. Unit: positions. */
  readonly maxPositions: number
  /**
   * Writes cos and sin, R / 2 each, of positions [begin, begin + count) to `cos` and `sin` from `offset` on, F32.
   * @param length of the whole sequence that the positions are computed with; only the dynamic kind looks at it.
   */
  write(
    begin: number,
    count: number,
    length: number,
    cos: Float32Array,
    sin: Float32Array,
    offset: number,
  ): void
}

/** Frequencies in radians per position, F32, and what cos and sin are multiplied by. */
interface Frequencies {
  readonly values: Float32Array
  readonly factor: number
}

type Parameters = JsonObject & { readonly rope_type?: JsonValue }

/**
 * The rotation that `config` describes, in the spelling of either major of transformers: the kinds default, linear, dynamic (NTK), yarn
 * (arXiv:2309.00071) and llama3.
 * @throws ModelError "unsupported-rope" for any other kind, "bad-config" where a number is missing.
 */
export function createRotation(family: Family, config: JsonObject): Rotation {
  const { headDim } = dimensionsOf(family, config)
  const { theta, scaling } = ropeOf(family, config)
  const parameters: Parameters = scaling ?? { rope_type: 'default' }
  const partial = parameters.partial_rotary_factor
  const dimensions = Math.trunc(headDim * (typeof partial === 'number' ? partial : 1))
  const trained = numberOf({ ...family.defaults, ...config }, 'max_position_embeddings')
  const plain = inverseFrequencies(theta, dimensions)
  const fixed =
    parameters.rope_type === 'dynamic' ? undefined : frequenciesOf(parameters, theta, plain, trained)
  return {
    dimensions,
    maxPositions: longestOf(parameters, trained),
    write(begin, count, length, cos, sin, offset) {
      const { values, factor } = fixed ?? dynamicFrequencies(parameters, theta, dimensions, trained, length)
      for (let i = 0; i < count; i++)
        for (let j = 0; j < values.length; j++) {
          const angle = Math.fround((begin + i) * values[j]!)
          cos[offset + i * values.length + j] = Math.fround(Math.cos(angle)) * factor
          sin[offset + i * values.length + j] = Math.fround(Math.sin(angle)) * factor
        }
    },
  }
}

/** theta^(-2i / R), each step rounded to F32 as torch does. */
function inverseFrequencies(theta: number, dimensions: number): Float32Array {
  return Float32Array.from(
    { length: Math.ceil(dimensions / 2) },
    (_, i) => 1 / Math.fround(theta ** Math.fround((2 * i) / dimensions)),
  )
}

function frequenciesOf(
  parameters: Parameters,
  theta: number,
  plain: Float32Array,
  trained: number,
): Frequencies {
  switch (parameters.rope_type) {
    case 'default':
      return { values: plain, factor: 1 }
    case 'linear': {
      const by = numberOf(parameters, 'factor')
      return { values: plain.map((value) => value / by), factor: 1 }
    }
    case 'llama3':
      return { values: llama3(parameters, plain), factor: 1 }
    case 'yarn':
      return yarn(parameters, theta, plain, trained)
    default:
      throw new ModelError({
        code: 'unsupported-rope',
        message: 'The kind of RoPE is not supported',
        file: 'config.json',
        expected: 'rope_type one of default, linear, dynamic, yarn, llama3',
        received: JSON.stringify(parameters.rope_type),
      })
  }
}

/** NTK-aware scaling that grows with the sequence: none up to the trained length. */
function dynamicFrequencies(
  parameters: Parameters,
  theta: number,
  dimensions: number,
  trained: number,
  length: number,
): Frequencies {
  const by = numberOf(parameters, 'factor')
  const growth = (by * Math.max(length, trained)) / trained - (by - 1)
  const base = theta * growth ** (dimensions / (dimensions - 2))
  return { values: inverseFrequencies(base, dimensions), factor: 1 }
}

/** Long waves are divided by the factor, short ones stay, those between go over smoothly. */
function llama3(parameters: Parameters, plain: Float32Array): Float32Array {
  const by = numberOf(parameters, 'factor')
  const low = numberOf(parameters, 'low_freq_factor')
  const high = numberOf(parameters, 'high_freq_factor')
  const original = numberOf(parameters, 'original_max_position_embeddings')
  return plain.map((value) => {
    const wave = (2 * Math.PI) / value
    if (wave > original / low) return value / by
    if (wave < original / high) return value
    const smooth = (original / wave - low) / (high - low)
    return ((1 - smooth) * value) / by + smooth * value
  })
}

function yarn(parameters: Parameters, theta: number, plain: Float32Array, trained: number): Frequencies {
  const original = numberOf(parameters, 'original_max_position_embeddings')
  const by = optional(parameters, 'factor') ?? trained / original
  const dimensions = plain.length * 2
  const dimensionOf = (rotations: number) =>
    (dimensions * Math.log(original / (rotations * 2 * Math.PI))) / (2 * Math.log(theta))
  const truncate = parameters.truncate !== false
  const first = dimensionOf(optional(parameters, 'beta_fast') || 32)
  const last = dimensionOf(optional(parameters, 'beta_slow') || 1)
  const low = Math.max(truncate ? Math.floor(first) : first, 0)
  const high = Math.min(truncate ? Math.ceil(last) : last, dimensions - 1)
  const width = high === low ? 0.001 : high - low
  const values = plain.map((value, i) => {
    const ramp = Math.min(1, Math.max(0, (i - low) / width))
    return (value / by) * ramp + value * (1 - ramp)
  })
  return { values, factor: yarnFactor(parameters, by) }
}

/** What the paper multiplies attention's temperature by, on cos and sin. */
function yarnFactor(parameters: Parameters, by: number): number {
  const given = optional(parameters, 'attention_factor')
  if (given !== undefined) return given
  const scale = (weight: number) => (by <= 1 ? 1 : 0.1 * weight * Math.log(by) + 1)
  const mscale = optional(parameters, 'mscale')
  const all = optional(parameters, 'mscale_all_dim')
  return mscale && all ? scale(mscale) / scale(all) : scale(1)
}

/** Some configs give the trained length as the maximum, others the extended one. */
function longestOf(parameters: Parameters, trained: number): number {
  const by = optional(parameters, 'factor') ?? 1
  const original = optional(parameters, 'original_max_position_embeddings') ?? trained
  return parameters.rope_type === 'default' ? trained : Math.max(trained, Math.floor(by * original))
}

function optional(object: JsonObject, name: string): number | undefined {
  const value = object[name]
  return typeof value === 'number' ? value : undefined
}

function numberOf(object: JsonObject, name: string): number {
  const value = optional(object, name)
  if (value !== undefined) return value
  throw new ModelError({
    code: 'bad-config',
    message: `Config field ${name} is missing or no number`,
    file: 'config.json',
    expected: 'a number',
    received: JSON.stringify(object[name]) ?? 'nothing',
    next: 'Use the config.json that belongs to these weights.',
  })
}
