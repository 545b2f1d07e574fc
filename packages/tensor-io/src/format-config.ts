import type { JsonObject, JsonValue } from '@polygraft/tensor'

const FLOAT = /^-?\d+(\.|[eE])/

/**
 * Names of fields, at any depth of a JSON text, that hold numbers written as floats, alone or in a list: `0.0`, `1e-5`.
 * The text is valid JSON.
 */
export function floatFieldsOf(text: string): string[] {
  const names = new Set<string>()
  let name = ''
  // Strings, numbers and colons in order; a string before a colon is a field's name.
  let last = ''
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|:/g)) {
    if (token === ':') name = last
    else if (token.startsWith('"')) last = token
    else if (FLOAT.test(token)) names.add(JSON.parse(name) as string)
  }
  return [...names].sort()
}

/** A config as the text of `config.json`: two spaces, a line feed at the end, and whole numbers of `floatFields` as `1.0`. */
export function formatConfig(config: JsonObject, floatFields: readonly string[] = []): string {
  return `${format(config, '', '', new Set(floatFields))}\n`
}

function format(value: JsonValue, name: string, indent: string, floats: ReadonlySet<string>): string {
  if (typeof value === 'number') return formatNumber(value, floats.has(name))
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const inner = `${indent}  `
  const isList = Array.isArray(value)
  const parts = isList
    ? (value as readonly JsonValue[]).map((item) => format(item, name, inner, floats))
    : Object.entries(value as JsonObject).map(
        ([key, item]) => `${JSON.stringify(key)}: ${format(item, key, inner, floats)}`,
      )
  const [open, close] = isList ? '[]' : '{}'
  if (parts.length === 0) return `${open}${close}`
  return `${open}\n${inner}${parts.join(`,\n${inner}`)}\n${indent}${close}`
}

function formatNumber(value: number, isFloat: boolean): string {
  const text = JSON.stringify(value)
  return isFloat && /^-?\d+$/.test(text) ? `${text}.0` : text
}
