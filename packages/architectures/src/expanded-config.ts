import type { JsonObject, JsonValue } from '@polygraft/tensor'
import { field } from './_config.js'
import { windowsOf } from './_window.js'
import { withBothSpellings } from './both-spellings.js'
import { dimensionsOf } from './dimensions.js'
import { familyOf } from './families.js'

/**
 * The `config.json` of a dense model with layers inserted: `layers` has for each layer of the result that of the model, and null
 * for an inserted one, which then attends as the layer before it does. Both transformers majors read it.
 * @throws ModelError "unsupported-family", "bad-config".
 */
export function expandedConfig(config: JsonObject, layers: readonly (number | null)[]): JsonObject {
  const family = familyOf(config)
  const { numLayers } = dimensionsOf(family, config)
  const windows = windowsOf(family, config, numLayers)
  let last = 0
  const from = layers.map((layer) => {
    last = layer ?? last
    return last
  })
  const fields: Record<string, JsonValue> = { num_hidden_layers: layers.length }
  if (family.window === 'layers') {
    const first = field(family, config, 'max_window_layers')
    const moved = typeof first === 'number' ? layers.indexOf(first) : -1
    if (typeof first === 'number')
      fields.max_window_layers = moved >= 0 ? moved : first + layers.length - numLayers
    if (windows.some((size) => size !== windows[0]) || Array.isArray(config.layer_types))
      fields.layer_types = from.map((layer) =>
        windows[layer] === null ? 'full_attention' : 'sliding_attention',
      )
  } else if (Array.isArray(config.layer_types)) {
    const types: readonly JsonValue[] = config.layer_types
    fields.layer_types = from.map((layer) => types[layer]!)
  }
  return withBothSpellings({ ...config, ...fields })
}
