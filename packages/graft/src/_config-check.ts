import type { JsonObject, JsonValue } from '@polygraft/tensor'
import { type Check, checkOf } from './verify-report.js'

/** Whether a config says what it should, whatever the order of its keys. `maker` names who writes it so. */
export function compareConfigs(config: JsonObject, expected: JsonObject, maker: string): Check {
  const keys = new Set([...Object.keys(config), ...Object.keys(expected)])
  const wrong = [...keys].filter((key) => canonical(config[key] ?? null) !== canonical(expected[key] ?? null))
  return checkOf('config', wrong, `${keys.size} fields as ${maker} writes them`)
}

/** JSON with sorted keys. */
function canonical(value: JsonValue): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  if (Array.isArray(value)) return `[${value.map(canonical)}]`
  const object = value as JsonObject
  return `{${Object.keys(object)
    .sort()
    .map((key) => `${JSON.stringify(key)}:${canonical(object[key]!)}`)}}`
}
