import { alignVocabularies, assembleRows, splitRows, type Vocabulary } from '@polygraft/delta'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

/** Tokens in the order of their ids; undefined leaves an id without a token. */
function vocabulary(tokens: readonly (string | undefined)[]): Vocabulary {
  const known = tokens.flatMap((token, id) => (token === undefined ? [] : [[token, id] as const]))
  return { ids: new Map(known), chatTemplates: new Map() }
}
const side = (tokens: readonly (string | undefined)[], rows = tokens.length) => ({
  vocabulary: vocabulary(tokens),
  rows,
})
const codes = (inputs: Parameters<typeof alignVocabularies>[0]) =>
  alignVocabularies(inputs).problems.map(({ code }) => code)

/** Each output row as `g:<cpt>,<base>,<post>`, `p:<post>` or `c:<cpt>`. */
function describeRows(inputs: Parameters<typeof alignVocabularies>[0]): string[] {
  const { runs, rows } = alignVocabularies(inputs)
  const list = (some: readonly (readonly [number, number])[]) =>
    some.flatMap(([start, count]) => Array.from({ length: count }, (_, i) => start + i))
  const [cpt, base, post] = [list(runs!.graft.cpt), list(runs!.graft.base), list(runs!.graft.post)]
  const all = [
    ...cpt.map((row, i) => `g:${row},${base[i]},${post[i]}`),
    ...list(runs!.post).map((row) => `p:${row}`),
    ...list(runs!.cpt).map((row) => `c:${row}`),
  ]
  const result = list(runs!.order).map((at) => all[at]!)
  expect(result).toHaveLength(rows)
  return result
}

describe('alignVocabularies', () => {
  it('needs no runs when the three tokenizers and row counts are equal', () => {
    const same = { base: side(['a', 'b'], 4), post: side(['a', 'b'], 4), cpt: side(['a', 'b'], 4) }
    expect(alignVocabularies(same)).toEqual({ by: 'same', rows: 4, tokenizer: 'post', problems: [] })
  })

  it("copies post's new tokens and keeps cpt's padding", () => {
    const inputs = { base: side(['a', 'b'], 4), post: side(['a', 'b', '<eot>'], 4), cpt: side(['a', 'b'], 4) }
    expect(describeRows(inputs)).toEqual(['g:0,0,0', 'g:1,1,1', 'p:2', 'c:3'])
    expect(alignVocabularies(inputs)).toMatchObject({ by: 'token', tokenizer: 'post', problems: [] })
  })

  it('drops padding that only post has (a tokenizer grown by one, rows by eight)', () => {
    const inputs = { base: side(['a', 'b']), post: side(['a', 'b', '<pad>'], 10), cpt: side(['a', 'b']) }
    expect(describeRows(inputs)).toEqual(['g:0,0,0', 'g:1,1,1', 'p:2'])
  })

  it("keeps cpt's own tokens, and then carries cpt's tokenizer", () => {
    const inputs = {
      base: side(['a', 'b']),
      post: side(['a', 'b', '<eot>']),
      cpt: side(['a', 'b', '<eot>', 'γ', 'δ'], 6),
    }
    expect(describeRows(inputs)).toEqual(['g:0,0,0', 'g:1,1,1', 'p:2', 'c:3', 'c:4', 'c:5'])
    expect(alignVocabularies(inputs)).toMatchObject({ tokenizer: 'cpt', problems: [] })
  })

  it("moves rows of tokens that have other ids to post's ids", () => {
    const inputs = {
      base: side(['a', undefined, 'x']),
      post: side(['a', 'x']),
      cpt: side(['a', undefined, undefined, 'x']),
    }
    expect(describeRows(inputs)).toEqual(['g:0,0,0', 'g:3,2,1', 'c:2', 'c:3'])
    expect(codes(inputs)).toEqual([])
  })

  it("keeps cpt's row of a token that post dropped", () => {
    const inputs = { base: side(['a', 'b', 'c']), post: side(['a', 'b'], 3), cpt: side(['a', 'b', 'c']) }
    expect(describeRows(inputs)).toEqual(['g:0,0,0', 'g:1,1,1', 'c:2'])
  })

  it("fills a gap past cpt's last row with post's", () => {
    const inputs = { base: side(['a']), post: side(['a', undefined, undefined, 'z']), cpt: side(['a'], 2) }
    expect(describeRows(inputs)).toEqual(['g:0,0,0', 'c:1', 'p:2', 'p:3'])
  })

  it('passes over tokens beyond the last row', () => {
    const inputs = { base: side(['a', 'b'], 1), post: side(['a', 'b'], 2), cpt: side(['a', 'b'], 2) }
    expect(describeRows(inputs)).toEqual(['g:0,0,0', 'p:1'])
  })

  it('names every id that means two tokens, and who gives it which', () => {
    const inputs = { base: side(['a', 'b', 'c']), post: side(['a', 'x', 'c']), cpt: side(['a', 'b', 'y']) }
    const { problems } = alignVocabularies(inputs)
    const collisions = problems.filter(({ code }) => code === 'vocabulary-collision')
    expect(collisions.map(({ message }) => message)).toEqual([
      'Token id 1 means different tokens',
      'Token id 2 means different tokens',
    ])
    expect(collisions[0]!.received).toBe('"b" in base, "x" in post, "b" in cpt')
  })

  it("names every token of post that cpt's tokenizer cannot stand for", () => {
    const inputs = { base: side(['a']), post: side(['a', 'p', 'q']), cpt: side(['a', 'p', undefined, 'γ']) }
    const { problems } = alignVocabularies(inputs)
    expect(problems.map(({ code, received }) => [code, received])).toEqual([
      ['tokenizer-cannot-merge', 'no such token in cpt'],
    ])
  })

  it('without tokenizers goes by id, if row counts are equal and those known agree', () => {
    const unknown = (rows: number) => ({ vocabulary: undefined, rows })
    expect(alignVocabularies({ base: unknown(3), post: unknown(3), cpt: unknown(3) })).toEqual({
      by: 'id',
      rows: 3,
      tokenizer: 'post',
      problems: [],
    })
    expect(alignVocabularies({ base: side(['a']), post: side(['a']), cpt: unknown(1) }).by).toBe('id')
    expect(codes({ base: unknown(3), post: unknown(4), cpt: unknown(3) })).toEqual(['vocabulary-unknown'])
    expect(codes({ base: side(['a']), post: side(['b']), cpt: unknown(1) })).toEqual(['vocabulary-unknown'])
  })

  it('takes the rows that the rule names, whatever the vocabularies (property)', () => {
    const token = fc.integer({ min: 0, max: 30 })
    // Ids drawn from a common table can never collide; each side knows some of them.
    const known = fc.uniqueArray(token, { maxLength: 20 })
    fc.assert(
      fc.property(known, known, known, fc.nat(5), (base, post, cpt, padding) => {
        const of = (ids: readonly number[]) => {
          const tokens: (string | undefined)[] = new Array(Math.max(-1, ...ids) + 1).fill(undefined)
          for (const id of ids) tokens[id] = `t${id}`
          return side(tokens, tokens.length + padding)
        }
        const inputs = { base: of(base), post: of(post), cpt: of(cpt) }
        if (alignVocabularies(inputs).by !== 'token') return
        expect(codes(inputs)).not.toContain('vocabulary-collision')
        describeRows(inputs).forEach((row, id) => {
          const [b, p, c] = [base.includes(id), post.includes(id), cpt.includes(id)]
          if (p) expect(row).toBe(b && c ? `g:${id},${id},${id}` : `p:${id}`)
          else expect(row).toBe(id < inputs.cpt.rows ? `c:${id}` : `p:${id}`)
        })
      }),
    )
  })

  it('has runs as few as the vocabularies have breaks', () => {
    const tokens = Array.from({ length: 5000 }, (_, i) => `t${i}`)
    const inputs = { base: side(tokens), post: side([...tokens, '<eot>']), cpt: side(tokens, 5010) }
    const { graft, post, cpt, order } = alignVocabularies(inputs).runs!
    expect([graft.cpt, graft.base, graft.post, post, cpt, order].map(({ length }) => length)).toEqual([
      1, 1, 1, 1, 1, 1,
    ])
  })
})

describe('assembleRows', () => {
  const part = (tensor: string) => ({ op: 'read' as const, source: 's', tensor })
  const parts = { graft: part('g'), post: part('p'), cpt: part('c') }

  it('is one concat where kinds follow each other', () => {
    const runs = alignVocabularies({ base: side(['a']), post: side(['a', 'b']), cpt: side(['a'], 3) }).runs!
    expect(assembleRows(runs, 2, parts)).toEqual({
      op: 'concat',
      args: [parts.graft, parts.post, parts.cpt],
      sizes: [2, 2, 2],
    })
  })

  it('has a fixed number of nodes however the kinds alternate', () => {
    const tokens = Array.from({ length: 1000 }, (_, i) => (i % 2 ? `t${i}` : undefined))
    const post = Array.from({ length: 1000 }, (_, i) => `t${i}`)
    const runs = alignVocabularies({ base: side(tokens), post: side(post), cpt: side(tokens, 1000) }).runs!
    const expr = assembleRows(runs, 2, parts)
    expect(expr).toMatchObject({
      op: 'rows',
      width: 2,
      arg: { op: 'concat', args: [parts.graft, parts.post] },
    })
    expect(runs.order).toHaveLength(1000)
  })

  it('parts rows by id', () => {
    const { graft, post, cpt, order } = splitRows([[1, 2]], 5)
    expect(graft.post).toEqual([
      [0, 1],
      [3, 2],
    ])
    expect([post, cpt]).toEqual([[[1, 2]], []])
    expect(order).toEqual([
      [0, 1],
      [3, 2],
      [1, 2],
    ])
  })
})
