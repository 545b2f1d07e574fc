import type { JsonObject } from '@polygraft/tensor'
import { field } from './_config.js'
import type { Family } from './family.js'

/**
 * The sliding window of each layer, in tokens; null for full attention.
 * Qwen2 and Qwen3: `layer_types` decides, else the layers from `max_window_layers` on slide.
 */
export function windowsOf(family: Family, config: JsonObject, numLayers: number): readonly (number | null)[] {
  const size = windowSize(family, config)
  return Array.from({ length: numLayers }, (_, layer) => (slides(family, config, layer) ? size : null))
}

function windowSize(family: Family, config: JsonObject): number | null {
  // null is a value here (no window), so it must not fall back to the family's default.
  const value = Object.hasOwn(config, 'sliding_window')
    ? config.sliding_window
    : family.defaults.sliding_window
  if (family.window === 'never' || typeof value !== 'number') return null
  if (family.window === 'always') return value
  return field(family, config, 'use_sliding_window') === true ? value : null
}

function slides(family: Family, config: JsonObject, layer: number): boolean {
  if (family.window !== 'layers') return true
  const types = config.layer_types
  if (Array.isArray(types)) return types[layer] === 'sliding_attention'
  const first = field(family, config, 'max_window_layers')
  return layer >= (typeof first === 'number' ? first : 0)
}

/** `windows` for people: `none`, `4096 in every layer`, `4096 in layers 2, 3 of 4`. */
export function describeWindows(windows: readonly (number | null)[]): string {
  const sliding = windows.flatMap((size, layer) => (size === null ? [] : [layer]))
  if (sliding.length === 0) return 'none'
  const size = windows[sliding[0]!]
  if (sliding.length === windows.length) return `${size} in every layer`
  return `${size} in layers ${sliding.join(', ')} of ${windows.length}`
}
