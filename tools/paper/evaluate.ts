import { createCpuBackend, openModel } from '@polygraft/model'
import type { Checkpoint } from '@polygraft/tensor'
import { createDraws } from './random.js'
import { type Instruction, type Letter, NEW, ORIGINAL, TASKS, type World } from './world.js'

/** Held-out data: 'dev' for choosing, 'test' for reporting. */
export type Split = 'dev' | 'test'

/** Perplexity of raw text, and share of instructions answered exactly; over the original and over the new languages. */
export interface Scores {
  readonly originalPerplexity: number
  readonly newPerplexity: number
  readonly originalInstructions: number
  readonly newInstructions: number
}

/** Measures a checkpoint on `documents` texts and `items` instructions for each language. */
export async function measure(
  checkpoint: Checkpoint,
  world: World,
  seed: number,
  split: Split,
  { documents, items }: { readonly documents: number; readonly items: number },
): Promise<Scores> {
  const backend = await createCpuBackend()
  const model = await openModel(checkpoint, { backend })
  const { vocabularySize: width } = model.dimensions
  /** Logits [T, V] of all tokens. */
  const logitsOf = async (tokens: readonly number[]) => {
    const cache = model.createCache(tokens.length)
    try {
      return await model.forward([{ cache, begin: 0, tokens, wanted: 'all' }])
    } finally {
      backend.freeCache(cache)
    }
  }
  /** exp of the mean negative log-likelihood. */
  const perplexity = async (letters: readonly Letter[]) => {
    let [sum, count] = [0, 0]
    for (const letter of letters) {
      const draws = createDraws(seed, `${split} documents ${letter}`)
      for (let i = 0; i < documents; i++) {
        const tokens = world.document(letter, draws)
        const logits = await logitsOf(tokens)
        for (let t = 0; t + 1 < tokens.length; t++)
          sum -= logProbability(logits.subarray(t * width, (t + 1) * width), tokens[t + 1]!)
        count += tokens.length - 1
      }
    }
    return Math.exp(sum / count)
  }
  // Greedy decoding gives the answer exactly when, after each of its tokens, the likeliest is the next: one pass tells.
  const isRight = async ({ prompt, answer }: Instruction) => {
    const tokens = [...prompt, ...answer]
    const logits = await logitsOf(tokens)
    return answer.every((token, i) => {
      const at = (prompt.length + i - 1) * width
      return likeliest(logits.subarray(at, at + width)) === token
    })
  }
  const exactMatch = async (letters: readonly Letter[]) => {
    let right = 0
    for (const letter of letters) {
      const draws = createDraws(seed, `${split} instructions ${letter}`)
      for (let i = 0; i < items; i++)
        right += Number(await isRight(world.instruction(letter, TASKS[i % TASKS.length]!, draws, true)))
    }
    return right / (items * letters.length)
  }
  try {
    return {
      originalPerplexity: await perplexity(ORIGINAL),
      newPerplexity: await perplexity(NEW),
      originalInstructions: await exactMatch(ORIGINAL),
      newInstructions: await exactMatch(NEW),
    }
  } finally {
    await model.close()
    await backend.close()
  }
}

function logProbability(logits: Float32Array, token: number): number {
  const highest = Math.max(...logits)
  let sum = 0
  for (const logit of logits) sum += Math.exp(logit - highest)
  return logits[token]! - highest - Math.log(sum)
}

function likeliest(logits: Float32Array): number {
  let best = 0
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i
  return best
}
