import type { Model, Observer, TokenSpan } from '@polygraft/model'
import type { Choices } from './chat-api.js'

/** A model whose gates are watched. Steps must have one span. */
export interface TracedModel {
  readonly model: Model
  /** What the token at `position` of the sequence computed last took; undefined before it was computed. */
  choicesAt(position: number): Choices | undefined
  /** Tokens of that sequence that are computed. */
  length(): number
}

/**
 * Watches the gates of `model`. Positions that a later sequence takes from the cache keep their choices: they are the same tokens
 * after the same tokens.
 */
export function traceModel(model: Model): TracedModel {
  const { numLayers } = model.dimensions
  const chosen: number[][][] = []
  let computed = 0

  function watch({ begin, tokens }: TokenSpan): Observer {
    for (let i = 0; i < tokens.length; i++) chosen[begin + i] = Array.from({ length: numLayers }, () => [])
    return {
      routing(layer, { experts }) {
        const topK = experts.length / tokens.length
        for (let i = 0; i < tokens.length; i++)
          chosen[begin + i]![layer] = [...experts.subarray(i * topK, (i + 1) * topK)]
      },
    }
  }

  async function traced<T>(
    spans: readonly TokenSpan[],
    step: (spans: readonly TokenSpan[], observer: Observer) => Promise<T>,
  ): Promise<T> {
    const span = spans[0]!
    const result = await step(spans, watch(span))
    computed = span.begin + span.tokens.length
    return result
  }

  return {
    model: {
      ...model,
      forward: (spans) => traced(spans, model.forward),
      forwardGreedy: (spans) => traced(spans, model.forwardGreedy),
    },
    choicesAt: (position) => (position < computed ? chosen[position] : undefined),
    length: () => computed,
  }
}
