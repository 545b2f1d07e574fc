import type { Model, Observer } from './open-model.js'

/** Tokens that are computed at once. */
const CHUNK = 256

/**
 * Runs a sequence through a model for what an observer sees of it, in steps of up to 256 tokens; nothing is predicted. Tokens
 * beyond the model's context are left out. Others have a turn after each step.
 * @returns how many tokens were seen.
 */
export async function observeTokens(
  model: Model,
  tokens: readonly number[],
  observer: Observer,
  signal?: AbortSignal,
): Promise<number> {
  const length = Math.min(tokens.length, model.maxPositions)
  if (length === 0) return 0
  const cache = model.createCache(length)
  try {
    for (let begin = 0; begin < length; begin += CHUNK) {
      signal?.throwIfAborted()
      const part = tokens.slice(begin, Math.min(begin + CHUNK, length))
      await model.forward([{ cache, begin, tokens: part, wanted: 'none', length }], observer)
      await new Promise((resolve) => setTimeout(resolve))
    }
  } finally {
    model.backend.freeCache(cache)
  }
  return length
}
