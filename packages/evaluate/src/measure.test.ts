import {
  createLanguageClassifier,
  type EvaluatedModel,
  languageFidelity,
  measurePerplexity,
  measureTasks,
  parseTasks,
  summarizeLanguages,
  summarizeTasks,
} from '@polygraft/evaluate'
import { describe, expect, it } from 'vitest'

/** A model of words: p(word | the one before) by counts over a text, with one count for each known word besides. */
function bigramModel(text: string, contextLength = 64): EvaluatedModel {
  const words = ['<s>', ...new Set(text.split(' '))]
  const encode = (line: string) => [
    0,
    ...line
      .split(' ')
      .filter(Boolean)
      .map((word) => words.indexOf(word)),
  ]
  const ids = encode(text)
  const probability = (before: number, word: number) => {
    const follows = ids.filter((_, i) => ids[i - 1] === before)
    return (follows.filter((each) => each === word).length + 1) / (follows.length + words.length)
  }
  const next = (before: number) =>
    words.reduce((best, _, word) => (probability(before, word) > probability(before, best) ? word : best), 0)
  return {
    contextLength,
    encode,
    logProbabilities: async (tokens, from) => {
      if (tokens.length > contextLength) throw new Error('too long')
      return Float64Array.from(tokens.slice(from), (word, i) =>
        Math.log(probability(tokens[from + i - 1]!, word)),
      )
    },
    generate: async (prompt, { until, maxNewTokens }) => {
      const answer: string[] = []
      for (let at = encode(prompt).at(-1)!; answer.length < maxNewTokens; ) {
        at = next(at)
        if (until.includes(words[at]!)) break
        answer.push(words[at]!)
      }
      return answer.join(' ')
    },
  }
}

const TEXT = 'a b c . a b c . a b d . x y z .'

describe('measurePerplexity', () => {
  it('is the same whatever the window of a model that looks one word back', async () => {
    const [whole, windowed] = await Promise.all(
      [64, 4].map((context) => measurePerplexity(bigramModel(TEXT, context), [TEXT, 'a b'], { stride: 1 })),
    )
    expect(windowed!.tokens).toBe(whole!.tokens)
    expect(windowed!.perplexity).toBeCloseTo(whole!.perplexity, 12)
    expect(whole!.tokens).toBe(18)
  })

  it('is the number of words for a model that knows nothing', async () => {
    const { perplexity } = await measurePerplexity(bigramModel('q'), ['q'])
    // p(q | <s>) = (1 + 1) / (1 + 2)
    expect(perplexity).toBeCloseTo(1.5)
  })

  it('refuses text without tokens, and strides beyond the context', async () => {
    const model = bigramModel(TEXT)
    await expect(measurePerplexity(model, [''])).rejects.toMatchObject({ code: 'no-text' })
    await expect(measurePerplexity(model, ['a b'], { stride: 64 })).rejects.toMatchObject({
      code: 'bad-option',
    })
  })

  it('names the document that the model gives NaN for', async () => {
    const model = { ...bigramModel(TEXT), logProbabilities: async () => new Float64Array([Number.NaN]) }
    await expect(measurePerplexity(model, ['a b'])).rejects.toMatchObject({ code: 'not-finite' })
  })
})

describe('measureTasks', () => {
  const lines = [
    { task: 'next', language: 'abc', prompt: 'a b', answer: 'c', until: '.' },
    { task: 'next', language: 'xyz', prompt: 'x', answer: ['no', 'y z'], until: '.' },
    { task: 'next', language: 'xyz', prompt: 'y', answer: 'y', until: '.' },
    { task: 'choose', prompt: 'a b', choices: ['d', 'c', 'x'], gold: 1 },
    { task: 'choose', prompt: 'a', choices: ['b c', 'b d'], gold: 1 },
  ]
  const items = parseTasks(lines.map((line) => JSON.stringify(line)).join('\n'), 'file', 'task')

  it('answers greedily, or takes the likeliest choice', async () => {
    const results = await measureTasks(bigramModel(TEXT), items)
    expect(results.map(({ answer }) => answer)).toEqual(['c', 'y z', 'z', 'c', 'b c'])
    expect(summarizeTasks(results)).toMatchObject({
      next: { accuracy: 2 / 3, n: 3 },
      choose: { accuracy: 0.5, n: 2 },
      'choose (per byte)': { accuracy: 0.5, n: 2 },
    })
    expect(summarizeLanguages(results)).toMatchObject({ abc: { accuracy: 1 }, xyz: { accuracy: 0.5 } })
  })

  it('tells whether answers are in the language of the question', async () => {
    const classifier = createLanguageClassifier(
      new Map([
        ['abc', 'a b c d'],
        ['xyz', 'x y'],
      ]),
    )
    const results = await measureTasks(bigramModel(TEXT), items)
    expect(languageFidelity(results, classifier)).toMatchObject({
      abc: { accuracy: 1, n: 1 },
      xyz: { accuracy: 0.5, n: 2 },
    })
  })

  it('keeps the end of a prompt longer than the context', async () => {
    const [result] = await measureTasks(bigramModel(TEXT, 3), items.slice(3, 4))
    expect(result!.answer).toBe('c')
  })

  it('stops when it is told to', async () => {
    const work = measureTasks(bigramModel(TEXT), items, { signal: AbortSignal.abort(new Error('enough')) })
    await expect(work).rejects.toThrow('enough')
  })
})
