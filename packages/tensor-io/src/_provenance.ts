import { type JsonObject, type JsonValue, ModelError, type Provenance, type Skipped } from '@polygraft/tensor'
import { MANIFEST } from './_classify.js'
import { isJsonObject } from './parse-json.js'

/** How an opened checkpoint came to be, from its `polygraft.json`. A file of that name without our mark says nothing. */
export function parseProvenance(manifest: JsonObject | undefined): Provenance {
  if (!isJsonObject(manifest?.polygraft)) return { recipe: [], skipped: [] }
  const { recipe = [], experts, skipped = [] } = manifest
  if (!isArrayOf(recipe, isJsonObject)) throw wrong('recipe', 'an array of objects')
  if (experts !== undefined && !isArrayOf(experts, isString)) throw wrong('experts', 'an array of strings')
  if (!isArrayOf(skipped, isSkipped)) throw wrong('skipped', 'an array of { tensor, reason }')
  return { recipe, skipped, ...(experts === undefined ? {} : { experts }) }
}

function isArrayOf<T extends JsonValue>(
  value: JsonValue,
  is: (element: JsonValue) => element is T,
): value is readonly T[] {
  return Array.isArray(value) && value.every(is)
}

function isString(value: JsonValue): value is string {
  return typeof value === 'string'
}

function isSkipped(value: JsonValue): value is JsonObject & Skipped {
  return isJsonObject(value) && typeof value.tensor === 'string' && typeof value.reason === 'string'
}

function wrong(field: string, expected: string): ModelError {
  const message = `The manifest's ${field} is malformed`
  return new ModelError({ code: 'bad-manifest', message, file: MANIFEST, expected })
}
