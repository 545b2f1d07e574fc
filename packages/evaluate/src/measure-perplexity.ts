import { ModelError } from '@polygraft/tensor'
import type { EvaluatedModel, MeasureOptions } from './evaluated-model.js'
import type { LanguageScore } from './report.js'
import { slidingWindows } from './windows.js'

export interface PerplexityOptions extends MeasureOptions {
  /** Tokens by which the window slides over a document longer than the context. Default: half of the context. */
  readonly stride?: number
}

/**
 * Perplexity of documents: exp(-mean log p(token | those before it)), over all tokens but each document's first. A document
 * longer than the context is seen through a sliding window (`slidingWindows`).
 * @throws ModelError "no-text" when no document has two tokens; "bad-option" for a stride that is no whole number from 1 to
 * the context less one; "not-finite" when the model gives no number for a token.
 */
export async function measurePerplexity(
  model: EvaluatedModel,
  documents: readonly string[],
  options: PerplexityOptions = {},
): Promise<LanguageScore> {
  const { contextLength } = model
  const { stride = Math.max(1, Math.floor(contextLength / 2)), signal, onProgress } = options
  if (!Number.isInteger(stride) || stride < 1 || stride >= contextLength)
    throw new ModelError({
      code: 'bad-option',
      message: 'The stride is not usable',
      expected: `a whole number from 1 to ${contextLength - 1}`,
      received: `${stride}`,
    })
  let [sum, tokens] = [0, 0]
  for (const [index, document] of documents.entries()) {
    const ids = model.encode(document)
    for (const { begin, score, end } of slidingWindows(ids.length, contextLength, stride)) {
      const logs = await model.logProbabilities(ids.slice(begin, end), score - begin, signal)
      sum += logs.reduce((a, b) => a + b, 0)
      tokens += logs.length
    }
    if (!Number.isFinite(sum))
      throw new ModelError({
        code: 'not-finite',
        message: `The model gives no finite likelihood for document ${index + 1}`,
        received: `${sum}`,
        next: 'Look for NaN or infinite weights with `polygraft verify`.',
      })
    onProgress?.({ done: index + 1, total: documents.length })
  }
  if (tokens === 0)
    throw new ModelError({
      code: 'no-text',
      message: 'There is no text to score',
      expected: 'two tokens or more',
    })
  return { perplexity: Math.exp(-sum / tokens), tokens }
}
