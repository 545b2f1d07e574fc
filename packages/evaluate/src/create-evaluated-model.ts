import { createGenerator, type Model, type TextTokenizer } from '@polygraft/model'
import type { EvaluatedModel } from './evaluated-model.js'

/** Tokens whose logits are held at once. */
const CHUNK = 256

/**
 * A model with its tokenizer, as evaluations ask it. A begin token that a text spells out itself is not put before it once more.
 * @param endTokens that end an answer (`readEndTokens`).
 */
export function createEvaluatedModel(
  model: Model,
  tokenizer: TextTokenizer,
  endTokens: readonly number[],
): EvaluatedModel {
  const generator = createGenerator(model, tokenizer)
  return {
    contextLength: model.maxPositions,
    encode: tokenizer.begin,
    async logProbabilities(tokens, from, signal) {
      const logs = new Float64Array(Math.max(0, tokens.length - from))
      const cache = model.createCache(tokens.length)
      const size = model.dimensions.vocabularySize
      try {
        // The last token is only predicted.
        for (let begin = 0; begin < tokens.length - 1; begin += CHUNK) {
          signal?.throwIfAborted()
          const part = tokens.slice(begin, Math.min(begin + CHUNK, tokens.length - 1))
          const wanted = begin + part.length < from ? 'none' : 'all'
          const span = { cache, begin, tokens: part, wanted, length: tokens.length } as const
          const logits = await model.forward([span])
          for (let i = Math.max(0, from - 1 - begin); i < part.length && wanted === 'all'; i++) {
            const row = logits.subarray(i * size, (i + 1) * size)
            logs[begin + i + 1 - from] = logSoftmax(row, tokens[begin + i + 1]!)
          }
          await new Promise((resolve) => setTimeout(resolve))
        }
      } finally {
        model.backend.freeCache(cache)
      }
      return logs
    },
    async generate(prompt, { until, maxNewTokens, signal }) {
      const options = { stop: until, maxNewTokens, endTokens, ...(signal ? { signal } : {}) }
      const [answer] = await generator.complete([tokenizer.begin(prompt)], options)
      return answer!.text
    },
  }
}

/** In F64. */
function logSoftmax(logits: Float32Array, token: number): number {
  let most = Number.NEGATIVE_INFINITY
  for (const logit of logits) if (logit > most) most = logit
  let sum = 0
  for (const logit of logits) sum += Math.exp(logit - most)
  return logits[token]! - most - Math.log(sum)
}
