import type { EvaluatedModel, MeasureOptions } from './evaluated-model.js'
import type { ExactMatch, MultipleChoice, TaskItem } from './parse-tasks.js'

/** How one item went. */
export interface ItemResult {
  readonly item: TaskItem
  /** 1 or 0. */
  readonly score: number
  /** Multiple choice: 1 when the choice of the highest likelihood per byte of its text is right (lm-evaluation-harness's acc_norm). */
  readonly normalizedScore?: number
  /** What was generated, or the choice that was taken. */
  readonly answer: string
}

export interface TaskOptions extends MeasureOptions {
  /** Tokens that an answer may have. Default 64. */
  readonly maxNewTokens?: number
}

/**
 * Answers task items. Multiple choice: the choice with the highest log likelihood after the prompt (of equal ones the first).
 * Exact match: the greedy answer, ends trimmed, is one of the expected ones.
 */
export async function measureTasks(
  model: EvaluatedModel,
  items: readonly TaskItem[],
  options: TaskOptions = {},
): Promise<ItemResult[]> {
  const results: ItemResult[] = []
  for (const item of items) {
    options.signal?.throwIfAborted()
    const measure =
      item.kind === 'exact-match' ? generated(model, item, options) : chosen(model, item, options)
    results.push(await measure)
    options.onProgress?.({ done: results.length, total: items.length })
  }
  return results
}

async function generated(
  model: EvaluatedModel,
  item: ExactMatch,
  { maxNewTokens = 64, signal }: TaskOptions,
): Promise<ItemResult> {
  const { prompt, answers, until } = item
  const text = await model.generate(prompt, { until, maxNewTokens, ...(signal ? { signal } : {}) })
  const answer = text.trim()
  return { item, answer, score: answers.some((expected) => expected.trim() === answer) ? 1 : 0 }
}

async function chosen(
  model: EvaluatedModel,
  item: MultipleChoice,
  { signal }: TaskOptions,
): Promise<ItemResult> {
  const { prompt, choices, gold } = item
  const likelihoods: number[] = []
  for (const choice of choices) likelihoods.push(await likelihood(model, prompt, choice, signal))
  const perByte = likelihoods.map((each, i) => each / new TextEncoder().encode(choices[i]!).length)
  const best = indexOfLargest(likelihoods)
  return {
    item,
    answer: choices[best]!,
    score: best === gold ? 1 : 0,
    normalizedScore: indexOfLargest(perByte) === gold ? 1 : 0,
  }
}

/** log p(continuation | prompt); tokens that the two share at their seam count to the continuation. */
async function likelihood(
  model: EvaluatedModel,
  prompt: string,
  choice: string,
  signal: AbortSignal | undefined,
): Promise<number> {
  const continuation = /\s$/.test(prompt) || /^\s/.test(choice) ? choice : ` ${choice}`
  const [before, all] = [model.encode(prompt), model.encode(prompt + continuation)]
  const shared = before.findIndex((token, i) => token !== all[i])
  const from = Math.max(1, Math.min(shared < 0 ? before.length : shared, all.length - 1))
  // A prompt longer than the context loses its beginning.
  const cut = Math.max(0, Math.min(all.length - model.contextLength, from - 1))
  const logs = await model.logProbabilities(all.slice(cut), from - cut, signal)
  return logs.reduce((a, b) => a + b, 0)
}

function indexOfLargest(values: readonly number[]): number {
  return values.reduce((best, value, i) => (value > values[best]! ? i : best), 0)
}
