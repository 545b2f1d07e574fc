import { ModelError } from '@polygraft/tensor'

/** Tells which of some languages a text is in. */
export interface LanguageClassifier {
  readonly languages: readonly string[]
  /** The likeliest language; undefined for a text without a letter or digit, or with no n-gram that any language knows. */
  classify(text: string): string | undefined
}

const ORDERS = [1, 2, 3, 4]
const SMOOTHING = 0.5

/**
 * Naive Bayes over character n-grams of one to four (after Cavnar and Trenkle, N-Gram-Based Text Categorization, 1994, with smoothed
 * likelihoods in place of ranks), words padded by a space. It tells the given languages apart and knows no others. Every language
 * has the same prior.
 * @param samples text by language; some thousand characters each are enough for languages that are not near relatives.
 * @throws ModelError "no-sample" with every language whose sample has no word; "one-language" for fewer than two.
 */
export function createLanguageClassifier(samples: ReadonlyMap<string, string>): LanguageClassifier {
  const counted = [...samples].map(([language, text]) => [language, countGrams(text)] as const)
  const empty = counted.filter(([, { size }]) => size === 0)
  if (counted.length < 2)
    throw new ModelError({
      code: 'one-language',
      message: 'To tell languages apart takes two of them',
      expected: 'samples of at least two languages',
      received: [...samples.keys()].join(', ') || 'none',
    })
  if (empty.length > 0)
    throw new ModelError(
      empty.map(([language]) => ({ code: 'no-sample', message: `The sample of ${language} has no word` })),
    )
  const known = new Set(counted.flatMap(([, grams]) => [...grams.keys()]))
  const models = counted.map(([language, grams]) => ({ language, score: scorer(grams, known) }))
  return {
    languages: [...samples.keys()],
    classify: (text) => {
      const grams = [...countGrams(text)].filter(([gram]) => known.has(gram))
      if (grams.length === 0) return undefined
      const scored = models.map(({ language, score }) => ({ language, score: score(grams) }))
      return scored.reduce((best, each) => (each.score > best.score ? each : best)).language
    },
  }
}

/** Log likelihood of counted n-grams under a language, each order of n-grams normalised by itself. */
function scorer(
  grams: ReadonlyMap<string, number>,
  known: ReadonlySet<string>,
): (text: readonly (readonly [string, number])[]) => number {
  const totals = new Map<number, number>()
  for (const [gram, count] of grams) totals.set(gram.length, (totals.get(gram.length) ?? 0) + count)
  const kinds = new Map<number, number>()
  for (const gram of known) kinds.set(gram.length, (kinds.get(gram.length) ?? 0) + 1)
  const logProbability = (gram: string) =>
    Math.log(
      ((grams.get(gram) ?? 0) + SMOOTHING) /
        ((totals.get(gram.length) ?? 0) + SMOOTHING * kinds.get(gram.length)!),
    )
  return (text) => text.reduce((sum, [gram, count]) => sum + count * logProbability(gram), 0)
}

function countGrams(text: string): ReadonlyMap<string, number> {
  const counts = new Map<string, number>()
  for (const word of text.toLowerCase().match(/[\p{L}\p{M}\p{N}]+/gu) ?? []) {
    const padded = ` ${word} `
    for (const order of ORDERS)
      for (let at = 0; at + order <= padded.length; at++) {
        const gram = padded.slice(at, at + order)
        if (gram !== ' ') counts.set(gram, (counts.get(gram) ?? 0) + 1)
      }
  }
  return counts
}
