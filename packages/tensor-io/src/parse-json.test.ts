import { ModelError } from '@polygraft/tensor'
import { isJsonObject, parseJson } from '@polygraft/tensor-io'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

const REFUSED: readonly [what: string, text: string, line: number, column: number][] = [
  ['nothing', '', 1, 1],
  ['only white space', ' \n\t', 2, 2],
  ['a duplicate key', '{"a": 1,\n "a": 2}', 2, 2],
  ['a duplicate key behind an escape', '{"a":1,"\\u0061":2}', 1, 8],
  ['a duplicate __proto__', '{"__proto__":1,"__proto__":2}', 1, 16],
  ['a duplicate key far down', '[{"x":{"k":[],"k":0}}]', 1, 15],
  ['a byte order mark', '\ufeff{}', 1, 1],
  ['a lone high surrogate', '"a\ud800b"', 1, 3],
  ['a lone low surrogate', '["\udc00"]', 1, 3],
  ['an escaped lone surrogate', '["\\ud800"]', 1, 2],
  ['escaped surrogates in the wrong order', '"\\udc00\\ud800"', 1, 1],
  ['a raw half and an escaped one', '"\ud83d\\ude00"', 1, 2],
  ['2^53 + 1', '[9007199254740993]', 1, 2],
  ['-2^53 - 1', '-9007199254740993', 1, 1],
  ['a huge integer', '1'.repeat(400), 1, 1],
  ['a huge number', '1e999', 1, 1],
  ['a leading zero', '[01]', 1, 2],
  ['a leading zero after minus', '-01', 1, 1],
  ['a plus', '+1', 1, 1],
  ['a minus alone', '-', 1, 1],
  ['a fraction without digits', '1.', 1, 2],
  ['a fraction without a zero', '.5', 1, 1],
  ['an exponent without digits', '1e', 1, 2],
  ['two numbers', '1-2', 1, 2],
  ['hexadecimal', '0x10', 1, 2],
  ['NaN', 'NaN', 1, 1],
  ['Infinity', '{"a":Infinity}', 1, 6],
  ['a misspelt word', '[true, nul]', 1, 8],
  ['a longer word', 'nulls', 1, 5],
  ['a comment', '{} // no', 1, 4],
  ['a trailing comma in an object', '{"a":1,}', 1, 8],
  ['a trailing comma in an array', '[1,]', 1, 4],
  ['a missing comma', '[1 2]', 1, 4],
  ['a missing colon', '{"a" 1}', 1, 6],
  ['a key without quotes', '{a:1}', 1, 2],
  ['single quotes', "['a']", 1, 2],
  ['an open object', '{"a":1', 1, 7],
  ['an open array', '[[', 1, 3],
  ['an open string', '"abc', 1, 5],
  ['an open string after an escape', '"a\\n', 1, 5],
  ['an escape at the end', '"a\\', 1, 3],
  ['a line feed in a string', '"a\nb"', 1, 3],
  ['a NUL in a string', '"\0"', 1, 2],
  ['a control character after an escape', '"\\t\u0001"', 1, 4],
  ['an unknown escape', '"\\x41"', 1, 2],
  ['an escape named like an inherited property', '"\\constructor"', 1, 2],
  ['a short unicode escape', '"\\u12"', 1, 2],
  ['a unicode escape with a sign', '"\\u+123"', 1, 2],
  ['an exotic space', '\u00a0{}', 1, 1],
  ['a form feed', '\f{}', 1, 1],
  ['two values', '{}{}', 1, 3],
  ['nesting of 129', '['.repeat(129) + ']'.repeat(129), 1, 129],
  ['nesting without an end', '{"a":'.repeat(100_000), 1, 641],
]

describe('parseJson', () => {
  it.each(REFUSED)('refuses %s', (_, text, line, column) => {
    const parse = () => parseJson(text, 'config.json')
    expect(parse).toThrow(ModelError)
    expect(parse).toThrow(expect.objectContaining({ code: 'bad-json', file: 'config.json' }))
    expect(parse).toThrow(`at line ${line}, column ${column} [bad-json] (config.json)`)
  })

  it('reads what JSON.parse reads', () => {
    // JSON.stringify writes a double beyond 2^53 with fewer digits than it has: that is what parseJson refuses.
    const exact = (_: string, value: unknown) =>
      typeof value === 'number' && Math.abs(value) > Number.MAX_SAFE_INTEGER ? 0 : value
    const values = fc.anything({ maxDepth: 4 })
    fc.assert(
      fc.property(fc.oneof(fc.jsonValue({ stringUnit: 'binary' }), values), (value) => {
        const text = JSON.stringify(value, exact) ?? '0'
        fc.pre(!/\\ud[89a-f]/i.test(text))
        expect(parseJson(text)).toEqual(JSON.parse(text))
      }),
    )
  })

  it('reads pretty-printed text, every white space and every escape', () => {
    const value = { a: [1, -0.5, 2e-7, 1e30, true, false, null], b: { '': '"\\/\b\f\n\r\t\u0000é😀' } }
    expect(parseJson(` \t\r\n${JSON.stringify(value, null, 2)}\n`)).toEqual(value)
    expect(parseJson('"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00E9\\uD83D\\ude00"')).toBe('"\\/\b\f\n\r\té😀')
  })

  it('keeps integers exactly, or refuses them', () => {
    expect(parseJson('9007199254740991')).toBe(Number.MAX_SAFE_INTEGER)
    // Tokenizer configurations hold this for "no limit": int(1e30), which a double holds exactly.
    expect(parseJson('1000000000000000019884624838656')).toBe(1e30)
    expect(() => parseJson('1000000000000000000000000000001')).toThrow(ModelError)
    expect(Object.is(parseJson('-0'), -0)).toBe(true)
  })

  it('whatever JSON.parse would lose, and whatever it refuses, is refused', () => {
    const texts = fc
      .tuple(
        fc.json(),
        fc.nat(),
        fc.constantFrom('', '"', '{', '}', ',', ':', '\\', '0', '-', 'e', '\u0000', '[', 'a'),
      )
      .map(([text, at, insert]) => {
        const i = at % (text.length + 1)
        return text.slice(0, i) + insert + text.slice(i + (at % 2))
      })
    fc.assert(
      fc.property(texts, (text) => {
        let value: unknown
        try {
          value = parseJson(text)
        } catch (error) {
          expect(error).toBeInstanceOf(ModelError)
          return
        }
        expect(value).toEqual(JSON.parse(text))
      }),
    )
  })

  it('makes __proto__ an own property', () => {
    const value = parseJson('{"__proto__": {"polluted": true}, "constructor": 1}')
    expect(isJsonObject(value) && Object.keys(value)).toEqual(['__proto__', 'constructor'])
    expect(Object.getPrototypeOf(value)).toBe(Object.prototype)
    expect(({} as Record<string, unknown>).polluted).toBeUndefined()
  })

  it('reads nesting of 128 and 200,000 keys', () => {
    expect(() => parseJson('['.repeat(128) + ']'.repeat(128))).not.toThrow()
    const keys = Array.from({ length: 200_000 }, (_, i) => `"key ${i}":${i}`)
    expect(Object.keys(parseJson(`{${keys}}`) as object)).toHaveLength(200_000)
  })
})

describe('isJsonObject', () => {
  it('tells objects from everything else', () => {
    expect([{}, [], null, 1, 'a', undefined].map((value) => isJsonObject(value))).toEqual([
      true,
      ...Array(5).fill(false),
    ])
  })
})
