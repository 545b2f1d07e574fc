import type { JsonObject, JsonValue } from '@polygraft/tensor'
import type { Fact, Family } from './family.js'

/** A config field, or what the family means where it is absent. null counts as absent. */
export function field(family: Family, config: JsonObject, name: string): JsonValue | undefined {
  const value = Object.hasOwn(config, name) ? config[name] : undefined
  return value ?? family.defaults[name] ?? undefined
}

/** A fact of the family, looked up in the config where a field decides it. */
export function fact(family: Family, config: JsonObject, value: Fact): boolean {
  return typeof value === 'boolean' ? value : field(family, config, value) === true
}

/** Whether `value` is a JSON object: neither null nor an array. */
export function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
