import { createLanguageClassifier } from '@polygraft/evaluate'
import { describe, expect, it } from 'vitest'

const SAMPLES = new Map([
  ['en', 'the house stands by the river and the children walk there every morning with their teacher'],
  ['de', 'das Haus steht am Fluss und die Kinder gehen jeden Morgen mit ihrer Lehrerin dorthin'],
  ['el', 'το σπίτι είναι δίπλα στο ποτάμι και τα παιδιά πηγαίνουν εκεί κάθε πρωί'],
])

describe('createLanguageClassifier', () => {
  const { classify } = createLanguageClassifier(SAMPLES)

  it.each([
    ['where are the other children', 'en'],
    ['wo ist die andere Lehrerin', 'de'],
    ['πού είναι το σπίτι', 'el'],
    ['ΠΟΤΑΜΙ', 'el'],
  ])('%s: %s', (text, language) => {
    expect(classify(text)).toBe(language)
  })

  it('says nothing of text without words, or with none that any language knows', () => {
    expect(classify(' ... !')).toBeUndefined()
    expect(classify('日本語')).toBeUndefined()
  })

  it('refuses one language alone, and samples without words', () => {
    expect(() => createLanguageClassifier(new Map([['en', 'a']]))).toThrow('two of them')
    expect(() =>
      createLanguageClassifier(
        new Map([
          ['en', 'a'],
          ['de', '...'],
        ]),
      ),
    ).toThrow('The sample of de has no word')
  })
})
