import type { JsonObject, JsonValue } from '@polygraft/tensor'
import { isRopePerLayerKind, ropeFields, ropeOf } from './_rope.js'
import { familyOf } from './families.js'

/** Fields that the two majors of transformers call by different names: 4 the first, 5 the second. */
const RENAMED = [
  ['torch_dtype', 'dtype'],
  ['num_local_experts', 'num_experts'],
] as const

/**
 * `config` with what one major of transformers (4 or 5) leaves out when it saves, so that both read the same model: RoPE as
 * `rope_theta` and `rope_scaling` and as `rope_parameters`, dtype and number of experts under either name. What is there
 * stays as it is.
 * @throws ModelError "unsupported-family".
 */
export function withBothSpellings(config: JsonObject): JsonObject {
  const added: Record<string, JsonValue> = {}
  for (const names of RENAMED) {
    const value = names.map((name) => config[name]).find((each) => each !== undefined && each !== null)
    for (const name of names) if (value !== undefined) added[name] = value
  }
  const rope = isRopePerLayerKind(config) ? {} : ropeFields(ropeOf(familyOf(config), config))
  const missing = Object.entries({ ...rope, ...added }).filter(([name]) => config[name] === undefined)
  return { ...config, ...Object.fromEntries(missing) }
}
