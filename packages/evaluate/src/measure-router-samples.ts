import { type Model, observeTokens } from '@polygraft/model'
import { addRouterSamples, createRouterSamples, type RouterSamples } from '@polygraft/routing'

export interface RouterSampleOptions {
  /** Whether `languageRouter` is to make routers of kind `lda`, which costs H^2 for each token. */
  readonly withProducts: boolean
  /** Tokens of one expert's documents that are looked at, from the first on. Default: all. */
  readonly maxTokens?: number
  readonly signal?: AbortSignal
}

/**
 * What a router would read in each layer, the norm after attention, over documents for each expert: what `languageRouter` makes
 * routers of. The model is usually the dense one that is to be upcycled.
 * @param documents of expert 0, 1, ..., as token ids. A document beyond the model's context is cut there.
 * @returns the samples of every layer.
 */
export async function measureRouterSamples(
  model: Model,
  documents: readonly (readonly (readonly number[])[])[],
  { withProducts, maxTokens = Number.POSITIVE_INFINITY, signal }: RouterSampleOptions,
): Promise<ReadonlyMap<number, RouterSamples>> {
  const { numLayers, hiddenSize } = model.dimensions
  const samples = new Map(
    Array.from({ length: numLayers }, (_, layer) => [
      layer,
      createRouterSamples(documents.length, hiddenSize, withProducts),
    ]),
  )
  for (const [expert, own] of documents.entries()) {
    const feedForwardInput = (layer: number, values: Float32Array) =>
      addRouterSamples(samples.get(layer)!, expert, values)
    let left = maxTokens
    for (const document of own)
      if (left > 0) left -= await observeTokens(model, document.slice(0, left), { feedForwardInput }, signal)
  }
  return samples
}
