import { dimensionsOf, familyOf } from '@polygraft/architectures'
import type { JsonObject } from '@polygraft/tensor'
import type { Expansion } from './expansion.js'

/**
 * The config as it would be with whole experts and without inserted layers: what is to be compared with the dense model's.
 * @throws ModelError "unsupported-family", "bad-config".
 */
export function collapsedConfig(config: JsonObject, { granularity, layers }: Expansion): JsonObject {
  return {
    ...config,
    ...wholeExperts(config, granularity),
    ...(layers ? originalLayers(config, layers) : {}),
  }
}

function wholeExperts(config: JsonObject, granularity: number): JsonObject {
  const family = familyOf(config)
  if (!family.moe || granularity === 1) return {}
  const { expertIntermediateSize } = dimensionsOf(family, config)
  return { [family.expertSizeField ?? 'intermediate_size']: expertIntermediateSize * granularity }
}

function originalLayers(config: JsonObject, layers: NonNullable<Expansion['layers']>): JsonObject {
  const original = <T>(values: readonly T[]) => values.filter((_, layer) => typeof layers[layer] === 'number')
  const types = config.layer_types
  return {
    num_hidden_layers: original(layers).length,
    ...(Array.isArray(types) ? { layer_types: original(types) } : {}),
  }
}
