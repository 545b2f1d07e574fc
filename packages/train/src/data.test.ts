import { ModelError } from '@polygraft/tensor'
import { drawBatch, encodeDocuments, type LanguageData, parseDocuments } from '@polygraft/train'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

const problemsOf = (run: () => unknown) => {
  try {
    run()
  } catch (error) {
    if (error instanceof ModelError) return error.problems.map(({ code, line }) => `${code} ${line}`)
    throw error
  }
  return []
}

describe('parseDocuments', () => {
  it.each([
    ['a line each', 'one\ntwo\n\n', ['one', 'two']],
    ['by blank lines where there are any', '\none\nmore\r\n\n \ntwo\n', ['one\nmore', 'two']],
  ])('text: %s', (_, content, expected) => {
    expect(parseDocuments(content, 'a.txt').map(({ text }) => text)).toEqual(expected)
  })

  it('jsonl: texts, and prompts with answers', () => {
    const content = '{"text": "a", "id": 1}\n\n{"prompt": "b", "answer": "c"}\n'
    expect(parseDocuments(content, 'a.jsonl')).toEqual([
      { text: 'a', line: 1 },
      { prompt: 'b', text: 'c', line: 3 },
    ])
  })

  it('names every broken line, and a file without any', () => {
    const broken = '{"text": "a"}\n{"text": 1}\nnot json\n[]\n{"prompt": "b"}\nnull\n{"text": ""}\n'
    expect(problemsOf(() => parseDocuments(broken, 'a.jsonl'))).toEqual(
      [2, 3, 4, 5, 6, 7].map((line) => `bad-data ${line}`),
    )
    expect(problemsOf(() => parseDocuments('\n \n', 'a.txt'))).toEqual(['no-data undefined'])
  })
})

/** One token for each character: its code. */
const codes = (text: string) => Array.from(text, (character) => character.charCodeAt(0))
const encoder = { begin: (text: string) => [1, ...codes(text)], continue: codes }
const options = { file: 'a.txt', context: 4, cut: false, vocabularySize: 128 }

describe('encodeDocuments', () => {
  it('learns every next token of a text, and the answer alone of a prompt', () => {
    const [text, pair] = encodeDocuments(
      [
        { text: 'ab', line: 1 },
        { prompt: 'a', text: 'bc', line: 2 },
      ],
      encoder,
      options,
    )
    expect([...text!.tokens, ...text!.targets]).toEqual([1, 97, 98, 97, 98, -1])
    expect([...pair!.tokens, ...pair!.targets]).toEqual([1, 97, 98, 99, -1, 98, 99, -1])
  })

  it('refuses what is longer than the context and what the model has no row for, or cuts texts', () => {
    const documents = [
      { text: 'abcdef', line: 1 },
      { text: 'aé', line: 2 },
      { prompt: 'abc', text: 'd', line: 3 },
    ]
    expect(problemsOf(() => encodeDocuments(documents, encoder, options))).toEqual([
      'too-long 1',
      'token-out-of-range 2',
      'too-long 3',
    ])
    const cut = encodeDocuments(documents.slice(0, 1), encoder, { ...options, cut: true })
    expect(cut.map(({ tokens }) => [...tokens])).toEqual([
      [1, 97, 98, 99],
      [100, 101, 102],
    ])
  })
})

describe('drawBatch', () => {
  const sequence = (length: number, value: number) => ({
    tokens: new Int32Array(length).fill(value),
    targets: new Int32Array(length).fill(value),
  })
  const data: LanguageData[] = [
    { language: 'a', weight: 1, sequences: [3, 5, 4].map(sequence), isOriginal: true, experts: [0] },
    { language: 'b', weight: 3, sequences: [2, 6].map((length, i) => sequence(length, 10 + i)) },
  ]
  const start = data.map(() => ({ documents: 0, tokens: 0 }))

  it('fills batches, gives languages their shares and each document its turn', () => {
    fc.assert(
      fc.property(fc.nat(1000), fc.integer({ min: 6, max: 40 }), (seed, size) => {
        let drawn: Parameters<typeof drawBatch>[1] = start
        const seen: number[] = []
        for (let i = 0; i < 30; i++) {
          const next = drawBatch(data, drawn, size, seed)
          drawn = next.drawn
          const { tokens, segments } = next.batch
          expect(tokens.length).toBeLessThanOrEqual(size)
          expect(segments.at(-1)!.end).toBe(tokens.length)
          for (const { begin, end, isOriginal } of segments) {
            expect(new Set(tokens.subarray(begin, end)).size).toBe(1)
            expect(isOriginal ?? false).toBe(tokens[begin]! < 10)
            if (isOriginal) seen.push(tokens[begin]!)
          }
        }
        expect(Math.abs(drawn[1]!.tokens / 3 - drawn[0]!.tokens)).toBeLessThanOrEqual(5)
        for (let epoch = 0; epoch + 3 <= seen.length; epoch += 3)
          expect([...seen.slice(epoch, epoch + 3)].sort()).toEqual([0, 1, 2])
      }),
      { numRuns: 20 },
    )
  })

  it('goes on from what was drawn, and refuses a batch that holds no document', () => {
    const first = drawBatch(data, start, 12, 1)
    const saved = JSON.parse(JSON.stringify(first.drawn))
    expect(drawBatch(data, saved, 12, 1)).toEqual(drawBatch(data, first.drawn, 12, 1))
    expect(problemsOf(() => drawBatch(data, start, 1, 1))).toEqual(['bad-batch undefined'])
  })
})
