import { DTYPE_BITS, type DType, ModelError } from '@polygraft/tensor'
import { formatSafetensors, parseSafetensors, readSafetensors } from '@polygraft/tensor-io'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { cases, counting, failure, fileOf, golden, rawFile, specs } from '../test/support.js'

const tensor = (fields: string) => `{"a":{${fields}}}`
const f32 = (shape: string, offsets: string) =>
  tensor(`"dtype":"F32","shape":${shape},"data_offsets":${offsets}`)
const two = (a: string, b: string) =>
  `{"a":{"dtype":"U8","shape":[4],"data_offsets":${a}},"b":{"dtype":"U8","shape":[4],"data_offsets":${b}}}`
const utf8 = (text: string) => new TextEncoder().encode(text)
const nested = (depth: number) => `{"a":${'['.repeat(depth)}${']'.repeat(depth)}}`

const ATTACKS: readonly [what: string, file: Uint8Array<ArrayBuffer>, code: string][] = [
  ['an empty file', new Uint8Array(), 'truncated'],
  ['half a length field', new Uint8Array(7), 'truncated'],
  ['a length field alone', rawFile('', 0, 2n), 'truncated'],
  ['a header longer than the file', rawFile('{}', 0, 3n), 'truncated'],
  ['a header of zero bytes', rawFile(''), 'bad-header'],
  ['a header above 100 MB', rawFile('{}', 100, 100_000_001n), 'bad-header'],
  ['a header length of 2^53 + 1', rawFile('{}', 0, 2n ** 53n + 1n), 'bad-header'],
  ['a header length of 2^64 - 1', rawFile('{}', 0, 2n ** 64n - 1n), 'bad-header'],
  ['a header length that wraps to 2', rawFile('{}', 0, 2n ** 63n + 2n), 'bad-header'],
  ['a web page', utf8('<!doctype html><html><body>404</body></html>'), 'bad-header'],
  ['white space before {', rawFile(' {}'), 'bad-header'],
  ['an array', rawFile('[]'), 'bad-header'],
  ['a byte order mark', rawFile('\ufeff{}'), 'bad-header'],
  ['text after the object', rawFile('{}{}'), 'bad-json'],
  ['a NUL as padding', rawFile('{}\0\0'), 'bad-json'],
  ['a header cut short', rawFile(f32('[1]', '[0,4]').slice(0, -3), 4), 'bad-json'],
  ['bytes that are no UTF-8', rawFile(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d)), 'bad-utf8'],
  ['overlong UTF-8', rawFile(Uint8Array.of(0x7b, 0x22, 0xc0, 0xaf, 0x22, 0x7d)), 'bad-utf8'],
  ['a surrogate in UTF-8', rawFile(Uint8Array.of(0x7b, 0x22, 0xed, 0xa0, 0x80, 0x22, 0x7d)), 'bad-utf8'],
  ['a lone surrogate', rawFile('{"\\ud800":{}}'), 'bad-json'],
  ['deep nesting', rawFile(nested(100_000)), 'bad-json'],
  ['a duplicate tensor', rawFile(`{"a":1,"a":2}`), 'bad-json'],
  [
    'a duplicate field',
    rawFile(tensor('"dtype":"F32","dtype":"U8","shape":[1],"data_offsets":[0,1]')),
    'bad-json',
  ],
  ['metadata twice', rawFile('{"__metadata__":{},"__metadata__":{}}'), 'bad-json'],
  ['metadata that is text', rawFile('{"__metadata__":"pt"}'), 'bad-header'],
  ['metadata that is null', rawFile('{"__metadata__":null}'), 'bad-header'],
  ['metadata that holds a number', rawFile('{"__metadata__":{"format":1}}'), 'bad-header'],
  [
    'metadata that is a tensor',
    rawFile('{"__metadata__":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    'bad-header',
  ],
  ['a tensor that is a number', rawFile('{"a":1}'), 'bad-tensor'],
  ['a tensor that is null', rawFile('{"a":null}'), 'bad-tensor'],
  ['a tensor that is an array', rawFile('{"a":["F32",[1],[0,4]]}', 4), 'bad-tensor'],
  ['__proto__ as a tensor of nothing', rawFile('{"__proto__":{}}'), 'bad-tensor'],
  ['__proto__ as a field', rawFile(tensor('"dtype":"U8","shape":[],"__proto__":[0,1]'), 1), 'bad-tensor'],
  ['a missing dtype', rawFile(tensor('"shape":[1],"data_offsets":[0,4]'), 4), 'bad-tensor'],
  ['a missing shape', rawFile(tensor('"dtype":"F32","data_offsets":[0,4]'), 4), 'bad-tensor'],
  ['missing offsets', rawFile(tensor('"dtype":"F32","shape":[1]'), 4), 'bad-tensor'],
  [
    'an unknown field',
    rawFile(tensor('"dtype":"U8","shape":[1],"data_offsets":[0,1],"scale":2'), 1),
    'bad-tensor',
  ],
  [
    'an unknown dtype',
    rawFile(tensor('"dtype":"F128","shape":[1],"data_offsets":[0,16]'), 16),
    'unknown-dtype',
  ],
  [
    'a dtype in lower case',
    rawFile(tensor('"dtype":"f32","shape":[1],"data_offsets":[0,4]'), 4),
    'unknown-dtype',
  ],
  [
    'a dtype named like an inherited property',
    rawFile(tensor('"dtype":"toString","shape":[],"data_offsets":[0,0]')),
    'unknown-dtype',
  ],
  [
    'a dtype that is a number',
    rawFile(tensor('"dtype":32,"shape":[1],"data_offsets":[0,4]'), 4),
    'unknown-dtype',
  ],
  ['a shape that is a number', rawFile(f32('1', '[0,4]'), 4), 'bad-shape'],
  ['a shape with text', rawFile(f32('["1"]', '[0,4]'), 4), 'bad-shape'],
  ['a negative size', rawFile(f32('[-1]', '[0,4]'), 4), 'bad-shape'],
  ['two negative sizes', rawFile(f32('[-1,-1]', '[0,4]'), 4), 'bad-shape'],
  ['minus zero', rawFile(f32('[-0]', '[0,0]')), 'bad-shape'],
  ['a nested shape', rawFile(f32('[[1]]', '[0,4]'), 4), 'bad-shape'],
  ['a fractional size', rawFile(f32('[1.0]', '[0,4]'), 4), 'bad-json'],
  ['an exponent in a size', rawFile(f32('[1e0]', '[0,4]'), 4), 'bad-json'],
  ['a size beyond 2^53', rawFile(f32('[9007199254740993]', '[0,4]'), 4), 'bad-json'],
  ['a size of 2^53', rawFile(f32('[9007199254740992]', '[0,4]'), 4), 'bad-shape'],
  ['a product that overflows 2^53', rawFile(f32('[94906267,94906267]', '[0,4]'), 4), 'bad-shape'],
  ['a product that wraps to 0 at 2^64', rawFile(f32('[4294967296,4294967296]', '[0,0]')), 'bad-shape'],
  ['a product that wraps to 4 bytes at 2^64', rawFile(f32('[4611686018427387904,4]', '[0,0]')), 'bad-shape'],
  [
    'a product that overflows before its zero',
    rawFile(f32('[4294967296,4294967296,0]', '[0,0]')),
    'bad-shape',
  ],
  ['a third of a byte', rawFile(tensor('"dtype":"F4","shape":[3],"data_offsets":[0,1]'), 1), 'bad-shape'],
  [
    'F6 that does not fill bytes',
    rawFile(tensor('"dtype":"F6_E2M3","shape":[2],"data_offsets":[0,2]'), 2),
    'bad-shape',
  ],
  ['one offset', rawFile(f32('[1]', '[0]'), 4), 'bad-offsets'],
  ['three offsets', rawFile(f32('[1]', '[0,4,8]'), 8), 'bad-offsets'],
  ['offsets as an object', rawFile(f32('[1]', '{"0":0,"1":4}'), 4), 'bad-offsets'],
  ['a negative offset', rawFile(f32('[1]', '[-4,0]'), 4), 'bad-offsets'],
  ['offsets that go backwards', rawFile(f32('[1]', '[4,0]'), 4), 'bad-offsets'],
  ['a fractional offset', rawFile(f32('[1]', '[0.0,4]'), 4), 'bad-json'],
  ['an offset of 2^53', rawFile(f32('[1]', '[9007199254740988,9007199254740992]'), 4), 'bad-offsets'],
  ['an offset beyond 2^64', rawFile(f32('[1]', '[0,36893488147419103232]'), 4), 'bad-offsets'],
  ['fewer bytes than the shape', rawFile(f32('[2]', '[0,4]'), 4), 'size-mismatch'],
  ['more bytes than the shape', rawFile(f32('[]', '[0,8]'), 8), 'size-mismatch'],
  ['bytes for an empty tensor', rawFile(f32('[0,3]', '[0,12]'), 12), 'size-mismatch'],
  ['tensors that overlap', rawFile(two('[0,4]', '[2,6]'), 6), 'overlap'],
  ['tensors in the same place', rawFile(two('[0,4]', '[0,4]'), 4), 'overlap'],
  ['a hole between tensors', rawFile(two('[0,4]', '[5,9]'), 9), 'hole'],
  ['a hole before the first', rawFile(two('[4,8]', '[8,12]'), 12), 'hole'],
  [
    'an empty tensor inside of another',
    rawFile(
      `{"z":{"dtype":"U8","shape":[0],"data_offsets":[2,2]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`,
      4,
    ),
    'overlap',
  ],
  ['data cut short', rawFile(two('[0,4]', '[4,8]'), 7), 'truncated'],
  ['no data at all', rawFile(two('[0,4]', '[4,8]'), 0), 'truncated'],
  ['a byte after the last tensor', rawFile(two('[0,4]', '[4,8]'), 9), 'trailing-bytes'],
  ['data without a tensor', rawFile('{}', 1), 'trailing-bytes'],
  [
    'data that reaches 2^53',
    rawFile(tensor(`"dtype":"U8","shape":[9007199254740991],"data_offsets":[0,9007199254740991]`), 8),
    'bad-shape',
  ],
]

describe('attacks', () => {
  it.each(ATTACKS)('refuses %s', async (_, bytes, code) => {
    const error = await failure(() => readSafetensors(new Blob([bytes]), 'x.safetensors'))
    expect(error.code).toBe(code)
    expect(error.file).toBe('x.safetensors')
  })

  it('lists all problems of a file', async () => {
    const header =
      '{"a":{"dtype":"F9","shape":[],"data_offsets":[0,1]},"b":1,"c":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}'
    const error = await failure(() => readSafetensors(new Blob([rawFile(header, 1)]), 'x'))
    expect(error.problems.map(({ tensor, code }) => [tensor, code])).toEqual([
      ['a', 'unknown-dtype'],
      ['b', 'bad-tensor'],
      ['c', 'bad-shape'],
    ])
  })

  it('says what the file should be', async () => {
    const error = await failure(() => readSafetensors(new Blob([rawFile(two('[0,4]', '[4,8]'), 7)]), 'x'))
    expect(error.problems[0]).toMatchObject({ expected: '121 bytes', received: '120 bytes' })
  })
})

describe('parseSafetensors', () => {
  it.each(cases.files)('reads what the reference wrote: $file', async ({ file, tensors, metadata }) => {
    const bytes = golden(file)
    const header = await readSafetensors(new Blob([bytes]), file)
    expect(header.metadata).toEqual(metadata)
    const found = [...header.tensors].map(([name, { dtype, shape }]) => [name, { dtype, shape }] as const)
    expect(new Map(found)).toEqual(new Map(specs(tensors)))
    const ends = [...header.tensors.values()].map(({ end }) => end)
    expect(ends).toEqual(ends.toSorted((a, b) => a - b))
    for (const { begin, end } of header.tensors.values())
      expect(bytes.subarray(begin, end)).toEqual(Uint8Array.from({ length: end - begin }, (_, i) => i % 251))
  })

  it('orders tensors by their data, not by their names or the header', () => {
    const json = utf8(two('[4,8]', '[0,4]'))
    expect([...parseSafetensors(json, 8 + json.length + 8, 'x').tensors.keys()]).toEqual(['b', 'a'])
  })

  it('takes an empty tensor between two others, in any order of the header', () => {
    const entry = (n: number, begin: number) =>
      `{"dtype":"U8","shape":[${n}],"data_offsets":[${begin},${begin + n}]}`
    const json = utf8(`{"c":${entry(2, 2)},"z":${entry(0, 2)},"a":${entry(2, 0)}}`)
    expect([...parseSafetensors(json, 8 + json.length + 4, 'x').tensors.keys()]).toEqual(['a', 'z', 'c'])
  })

  it('keeps a tensor and metadata named __proto__', () => {
    const json = utf8(
      '{"__proto__":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"__metadata__":{"__proto__":"x"}}',
    )
    const { tensors, metadata } = parseSafetensors(json, 8 + json.length, 'x')
    expect([...tensors.keys()]).toEqual(['__proto__'])
    expect(Object.entries(metadata)).toEqual([['__proto__', 'x']])
  })
})

describe('readSafetensors', () => {
  it('reads once, and not much more than the header', async () => {
    const log = { reads: 0, bytes: 0 }
    const bytes = fileOf([['w', { dtype: 'U8', shape: [2 ** 20] }]])
    await readSafetensors(counting(new Blob([bytes]), log), 'x')
    expect(log).toEqual({ reads: 1, bytes: 256 * 1024 })
  })

  it('reads a long header in two reads, each byte once', async () => {
    const names = Array.from(
      { length: 5000 },
      (_, i) => [`model.layers.${i}.weight`, { dtype: 'U8', shape: [1] }] as const,
    )
    const log = { reads: 0, bytes: 0 }
    const { header } = formatSafetensors(names)
    const found = await readSafetensors(counting(new Blob([fileOf(names)]), log), 'x')
    expect(found.tensors.size).toBe(5000)
    expect(log).toEqual({ reads: 2, bytes: header.length })
  })
})

const DTYPES = Object.keys(DTYPE_BITS) as DType[]
const specArbitrary = fc.record({
  dtype: fc.constantFrom(...DTYPES),
  // Eight in the last place fills whole bytes whatever the dtype.
  shape: fc.array(fc.nat(3), { maxLength: 3 }).map((shape) => [...shape, 8]),
})
const tensorsArbitrary = fc
  .uniqueArray(fc.tuple(fc.string({ unit: 'binary' }), specArbitrary), {
    selector: ([name]) => name,
    maxLength: 12,
  })
  .filter((all) => all.every(([name]) => name !== '__metadata__' && !/\p{Surrogate}/u.test(name)))
const metadataArbitrary = fc.dictionary(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), {
  noNullPrototype: true,
})

describe('properties', () => {
  it('what is formatted parses to the same tensors, places and metadata', () => {
    fc.assert(
      fc.property(tensorsArbitrary, metadataArbitrary, (tensors, metadata) => {
        const layout = formatSafetensors(tensors, metadata)
        const parsed = parseSafetensors(layout.header.subarray(8), layout.size, 'x')
        const places = (all: ReadonlyMap<string, { begin: number; end: number }>) =>
          new Map([...all].map(([name, { begin, end }]) => [name, { begin, end }]))
        expect(places(parsed.tensors)).toEqual(places(layout.tensors))
        expect(parsed.metadata).toEqual(metadata)
        for (const [name, spec] of tensors) expect(parsed.tensors.get(name)).toMatchObject(spec)
      }),
    )
  })

  it('bytes that change at random end in tensors that cover the file, or in a ModelError', async () => {
    const file = golden('all-dtypes.safetensors')
    const mutation = fc.tuple(
      fc.nat(file.length - 1),
      fc.oneof(fc.nat(255), fc.constantFrom(...utf8('{}[]",:0129-e\\'))),
    )
    await fc.assert(
      fc.asyncProperty(
        fc.array(mutation, { minLength: 1, maxLength: 4 }),
        fc.nat(file.length),
        async (mutations, cut) => {
          const bytes = file.slice(0, cut % 3 === 0 ? cut : file.length)
          for (const [at, value] of mutations) if (at < bytes.length) bytes[at] = value
          try {
            const { tensors } = await readSafetensors(new Blob([bytes]), 'x')
            const last = [...tensors.values()].at(-1)
            if (last) expect(last.end).toBe(bytes.length)
          } catch (error) {
            expect(error).toBeInstanceOf(ModelError)
          }
        },
      ),
      { numRuns: 500 },
    )
  })
})
