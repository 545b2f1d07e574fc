import { effectiveTensors, isTied, skippedTensors } from '@polygraft/delta'
import type { Checkpoint, JsonObject, JsonValue, Skipped, Tensor } from '@polygraft/tensor'

const LAYER = /^(.*?\b(?:layers|h|blocks)\.)(0|[1-9]\d*)(\..*)$/
const EMBEDDING = /\b(embed_tokens|wte|wpe|embed_in|embeddings)\b/

/** The layer that a tensor belongs to, by its name; undefined for embeddings, final norm and head. */
export function layerOf(name: string): number | undefined {
  const match = LAYER.exec(name)
  return match ? Number(match[2]) : undefined
}

/** `name` in layer `layer`. */
export function inLayer(name: string, layer: number): string {
  return name.replace(
    LAYER,
    (_, before: string, _layer: string, after: string) => `${before}${layer}${after}`,
  )
}

/** Whether a tensor outside of the layers lies before them. */
export function isBefore(name: string): boolean {
  return EMBEDDING.test(name)
}

/** How many layers a model has. */
export function layerCount({ config, tensors }: Checkpoint): number {
  const stated = config.num_hidden_layers
  if (typeof stated === 'number' && Number.isSafeInteger(stated)) return stated
  return [...tensors.keys()].reduce((most, name) => Math.max(most, (layerOf(name) ?? -1) + 1), 0)
}

/**
 * Models in one form, so that tensors can be looked up by name: without buffers and ignored heads, and with a head each
 * unless all are tied.
 */
export function inOneForm(models: readonly Checkpoint[]): {
  models: Checkpoint[]
  skipped: readonly Skipped[][]
} {
  const untied = !models.every(isTied)
  const changed = models.map((model) => ({
    ...model,
    tensors: effectiveTensors(model, untied),
    config: untied && isTied(model) ? { ...model.config, tie_word_embeddings: false } : model.config,
  }))
  return { models: changed, skipped: models.map(skippedTensors) }
}

/** Which of a model's tensors go into a part of the output, and as what. */
export interface View {
  readonly layers: readonly [from: number, to: number]
  /** The output's layer that the first of them becomes. */
  readonly at: number
  readonly before: boolean
  readonly after: boolean
}

/** A part of `model` under the output's names, of a model with `count` layers. */
export function viewOf(model: Checkpoint, view: View, count: number): Checkpoint {
  const { layers, at, before, after } = view
  const tensors = new Map<string, Tensor>()
  for (const [name, tensor] of model.tensors) {
    const layer = layerOf(name)
    if (layer === undefined) {
      if (isBefore(name) ? before : after) tensors.set(name, tensor)
    } else if (layer >= layers[0] && layer < layers[1])
      tensors.set(inLayer(name, layer - layers[0] + at), tensor)
  }
  // Which layers slide is checked where the output's config is put together.
  const lists = Object.hasOwn(model.config, 'layer_types') ? { layer_types: null } : {}
  return { ...model, tensors, config: { ...model.config, num_hidden_layers: count, ...lists } }
}

/**
 * The config of a model whose layers are those of others: their number, and what configs list layer by layer.
 * @param origins For each layer of the output, the config and the layer that it comes from.
 */
export function configOfLayers(
  config: JsonObject,
  origins: readonly { readonly config: JsonObject; readonly layer: number }[],
): JsonObject {
  const types = Array.isArray(config.layer_types)
    ? { layer_types: origins.map(({ config: from, layer }) => listed(from.layer_types, layer)) }
    : {}
  const dense = Array.isArray(config.mlp_only_layers)
    ? {
        mlp_only_layers: origins.flatMap(({ config: from, layer }, at) => (isDense(from, layer) ? [at] : [])),
      }
    : {}
  return { ...config, num_hidden_layers: origins.length, ...types, ...dense }
}

function listed(list: JsonValue | undefined, layer: number): JsonValue {
  return Array.isArray(list) ? (list[layer] ?? null) : null
}

function isDense({ mlp_only_layers: dense }: JsonObject, layer: number): boolean {
  return Array.isArray(dense) && dense.includes(layer)
}
