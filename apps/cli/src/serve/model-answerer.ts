import type { RunningModel } from '../model.js'
import type { Answerer } from './answerer.js'

/** A running model as the server asks it. */
export function modelAnswerer(id: string, { tokenizer, generator, endTokens }: RunningModel): Answerer {
  return {
    id,
    async *answer(prompt, options, signal) {
      const tokens =
        'messages' in prompt ? tokenizer.encodeChat(prompt.messages) : tokenizer.encode(prompt.text)
      const { finishReason, tokens: made } = yield* generator.stream(tokens, {
        ...options,
        endTokens,
        signal,
      })
      return { finishReason, promptTokens: tokens.length, newTokens: made.length }
    },
  }
}
