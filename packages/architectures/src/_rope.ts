import type { JsonObject } from '@polygraft/tensor'
import { field, isObject } from './_config.js'
import type { Family } from './family.js'

/** RoPE (arXiv:2104.09864) under one spelling. `scaling` is null for the plain kind, else it has a `rope_type`. */
export interface Rope {
  readonly theta: number
  readonly scaling: JsonObject | null
}

/** These kinds extend a pre-training length; transformers takes the config's maximum where it is not given. */
const NEEDS_ORIGINAL_LENGTH = ['llama3', 'yarn', 'longrope', 'dynamic']

/**
 * RoPE as transformers 5 understands a config: `rope_scaling` (4) before `rope_parameters` (5), a theta inside of it before the
 * one beside it, `type` as the old name of `rope_type`.
 */
export function ropeOf(family: Family, config: JsonObject): Rope {
  const { rope_scaling, rope_parameters } = config
  const given = isObject(rope_scaling) ? rope_scaling : isObject(rope_parameters) ? rope_parameters : {}
  const { rope_theta, rope_type, type, ...rest } = given
  const theta = Number(rope_theta ?? field(family, config, 'rope_theta'))
  const kind = rope_type ?? type ?? 'default'
  const partial = rest.partial_rotary_factor ?? config.partial_rotary_factor
  const scaling: Record<string, JsonObject[string]> = { rope_type: kind, ...rest }
  if (partial !== undefined && partial !== null && partial !== 1) scaling.partial_rotary_factor = partial
  if (typeof kind === 'string' && NEEDS_ORIGINAL_LENGTH.includes(kind))
    scaling.original_max_position_embeddings ??= field(family, config, 'max_position_embeddings') ?? null
  const plain = kind === 'default' && Object.keys(scaling).length === 1
  return { theta, scaling: plain ? null : scaling }
}

/** The fields by which both majors of transformers read `rope`: 4 the first two, 5 the third. */
export function ropeFields({ theta, scaling }: Rope): JsonObject {
  return {
    rope_theta: theta,
    rope_scaling: scaling,
    rope_parameters: { rope_theta: theta, ...(scaling ?? { rope_type: 'default' }) },
  }
}

/** Whether RoPE differs between kinds of layers (`rope_parameters: { full_attention: {...}, ... }`). */
export function isRopePerLayerKind(config: JsonObject): boolean {
  const { rope_parameters } = config
  return (
    isObject(rope_parameters) &&
    Object.entries(rope_parameters).some(([key, value]) => key.endsWith('_attention') && isObject(value))
  )
}
