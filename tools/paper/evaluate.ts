import { createCpuBackend, type Model, openModel } from '@polygraft/model'
import type { Checkpoint } from '@polygraft/tensor'
import { createDraws } from './random.js'
import { type Instruction, type Letter, NEW, ORIGINAL, TASKS, type Task, type World } from './world.js'

/** Held-out data: 'dev' for choosing, 'test' for reporting. */
export type Split = 'dev' | 'test'

/** Perplexity of raw text, and share of instructions answered exactly; over the original and over the new languages. */
export interface Scores {
  readonly originalPerplexity: number
  readonly newPerplexity: number
  readonly originalInstructions: number
  readonly newInstructions: number
  /** Share of each task's instructions answered exactly, [original, new]. */
  readonly tasks: Readonly<Record<Task, readonly [number, number]>>
}

/** How much is measured in each language. */
export interface Amounts {
  readonly documents: number
  readonly items: number
}

/** Sequences that are computed at once. */
const TOGETHER = 35

/** Measures a checkpoint on `documents` texts and `items` instructions for each language. */
export async function measure(
  checkpoint: Checkpoint,
  world: World,
  seed: number,
  split: Split,
  { documents, items }: Amounts,
): Promise<Scores> {
  const backend = await createCpuBackend()
  const model = await openModel(checkpoint, { backend })
  const textOf = (letter: Letter) => {
    const draws = createDraws(seed, `${split} documents ${letter}`)
    return Array.from({ length: documents }, () => world.document(letter, draws))
  }
  const askedOf = (letter: Letter) => {
    const draws = createDraws(seed, `${split} instructions ${letter}`)
    return Array.from({ length: items }, (_, i) =>
      world.instruction(letter, TASKS[i % TASKS.length]!, draws, true),
    )
  }
  try {
    const [original, added] = [
      await shares(model, ORIGINAL.map(askedOf)),
      await shares(model, NEW.map(askedOf)),
    ]
    return {
      originalPerplexity: await perplexity(model, ORIGINAL.flatMap(textOf)),
      newPerplexity: await perplexity(model, NEW.flatMap(textOf)),
      originalInstructions: mean(original),
      newInstructions: mean(added),
      tasks: Object.fromEntries(
        TASKS.map((task, t) => [task, [original[t]!, added[t]!]] as const),
      ) as Scores['tasks'],
    }
  } finally {
    await model.close()
    await backend.close()
  }
}

/** exp of the mean negative log-likelihood of a token. */
async function perplexity(model: Model, documents: readonly (readonly number[])[]): Promise<number> {
  let [sum, count] = [0, 0]
  await eachLogits(model, documents, (tokens, rowAt) => {
    for (let t = 0; t + 1 < tokens.length; t++) sum -= logProbability(rowAt(t), tokens[t + 1]!)
    count += tokens.length - 1
  })
  return Math.exp(sum / count)
}

/** Share of each task's instructions that are answered exactly, over all languages. */
async function shares(model: Model, asked: readonly (readonly Instruction[])[]): Promise<number[]> {
  const items = asked.flatMap((ofLanguage) =>
    ofLanguage.map((item, i) => ({ ...item, task: i % TASKS.length })),
  )
  const [right, count] = [TASKS.map(() => 0), TASKS.map(() => 0)]
  let at = 0
  // Greedy decoding gives the answer exactly when, after each of its tokens, the likeliest is the next: one pass tells.
  await eachLogits(
    model,
    items.map(({ prompt, answer }) => [...prompt, ...answer]),
    (_, rowAt) => {
      const { prompt, answer, task } = items[at++]!
      const isRight = answer.every((token, i) => likeliest(rowAt(prompt.length + i - 1)) === token)
      right[task]! += Number(isRight)
      count[task]! += 1
    },
  )
  return right.map((n, task) => n / count[task]!)
}

/** Visits the sequences in order with their logits, [V] for each position. */
async function eachLogits(
  model: Model,
  sequences: readonly (readonly number[])[],
  visit: (tokens: readonly number[], rowAt: (position: number) => Float32Array) => void,
): Promise<void> {
  const { vocabularySize: width } = model.dimensions
  for (let begin = 0; begin < sequences.length; begin += TOGETHER) {
    const part = sequences.slice(begin, begin + TOGETHER)
    const spans = part.map((tokens) => ({
      ...{ cache: model.createCache(tokens.length), begin: 0, tokens },
      wanted: 'all' as const,
    }))
    try {
      const logits = await model.forward(spans)
      let row = 0
      for (const tokens of part) {
        const first = row
        visit(tokens, (t) => logits.subarray((first + t) * width, (first + t + 1) * width))
        row += tokens.length
      }
    } finally {
      for (const { cache } of spans) model.backend.freeCache(cache)
    }
  }
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}

function logProbability(logits: Float32Array, token: number): number {
  const highest = logits.reduce((a, b) => Math.max(a, b))
  let sum = 0
  for (const logit of logits) sum += Math.exp(logit - highest)
  return logits[token]! - highest - Math.log(sum)
}

function likeliest(logits: Float32Array): number {
  let best = 0
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i
  return best
}
