import { type Model, observeTokens } from '@polygraft/model'
import { addLoad, createLoad, type ExpertLoad, routingDrift, summarizeLoad } from '@polygraft/routing'

/** What the gate of one layer did with some tokens. */
export interface LayerRouting {
  readonly layer: number
  readonly load: ExpertLoad
  readonly topK: number
  /** The chosen experts of every token in order, in pieces of [T, k]. */
  readonly chosen: readonly Uint32Array[]
}

/**
 * Runs documents through a mixture and notes which experts each token takes. Documents beyond the model's context are cut there.
 * @returns the mixture layers in order; none for a dense model.
 */
export async function measureRouting(
  model: Model,
  documents: readonly (readonly number[])[],
  signal?: AbortSignal,
): Promise<LayerRouting[]> {
  const layers = new Map<number, LayerRouting>()
  const { numExperts, topK } = model.dimensions
  for (const document of documents)
    await observeTokens(
      model,
      document,
      {
        routing(layer, { probabilities, experts }) {
          const { load, chosen } = layers.get(layer) ?? { load: createLoad(numExperts), chosen: [] }
          const sum = addLoad(load, { probabilities, experts })
          layers.set(layer, { layer, load: sum, topK, chosen: [...chosen, experts] })
        },
      },
      signal,
    )
  return [...layers.values()].sort((a, b) => a.layer - b.layer)
}

/** Each expert's share of the choices in every layer of a model; none in dense layers. */
export function sharesByLayer(
  layers: readonly LayerRouting[],
  numLayers: number,
): readonly (readonly number[])[] {
  const shares = Array.from({ length: numLayers }, (): readonly number[] => [])
  for (const { layer, load } of layers) shares[layer] = summarizeLoad(load).share
  return shares
}

/** Share of the tokens whose experts differ between two models that saw the same documents, in one layer. */
export function layerDrift(before: LayerRouting, after: LayerRouting): number {
  return routingDrift(joined(before.chosen), joined(after.chosen), after.topK)
}

function joined(parts: readonly Uint32Array[]): Uint32Array {
  const all = new Uint32Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}
