import { buildKernel, decode, encode, referenceKernel, simdKernel } from '@polygraft/kernels'
import { byteSize, type FloatDType, ModelError } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

const FORMATS = {
  BF16: { exponentBits: 8, fractionBits: 7, nan: 0x7fc0 },
  F16: { exponentBits: 5, fractionBits: 10, nan: 0x7e00 },
} as const
type Half = keyof typeof FORMATS

const ALL_WORDS = Uint16Array.from({ length: 0x10000 }, (_, i) => i)

/** The value of a 16-bit pattern, from the definition of the formats. */
function numberOf(dtype: Half, word: number): number {
  const { exponentBits, fractionBits } = FORMATS[dtype]
  const exponent = (word >> fractionBits) & (2 ** exponentBits - 1)
  const fraction = word & (2 ** fractionBits - 1)
  const sign = word & 0x8000 ? -1 : 1
  if (exponent === 2 ** exponentBits - 1) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
  const significand = exponent === 0 ? fraction : fraction + 2 ** fractionBits
  return sign * significand * 2 ** (Math.max(exponent, 1) - (2 ** (exponentBits - 1) - 1) - fractionBits)
}

/** The pattern nearest to x, ties to even, in integers of any size. */
function nearest(dtype: Half, x: number): number {
  const { exponentBits, fractionBits, nan } = FORMATS[dtype]
  if (Number.isNaN(x)) return nan
  const view = new DataView(new ArrayBuffer(8))
  view.setFloat64(0, x)
  const pattern = view.getBigUint64(0)
  const sign = Number(pattern >> 63n) * 0x8000
  const infinity = (2 ** exponentBits - 1) << fractionBits
  const biased = Number((pattern >> 52n) & 0x7ffn)
  if (biased === 0x7ff) return sign + infinity
  const fraction = pattern & 0xfffffffffffffn
  const significand = biased === 0 ? fraction : fraction + (1n << 52n) // |x| = significand * 2^exponent
  const exponent = Math.max(biased, 1) - 1075
  const least = 2 - 2 ** (exponentBits - 1) // exponent of the smallest normal number
  const top = biased === 0 ? -2000 : biased - 1023
  const unit = Math.max(top, least) - fractionBits // exponent of the last place
  const shift = BigInt(unit - exponent)
  let q = shift <= 0n ? significand << -shift : significand >> shift
  if (shift > 0n) {
    const rest = significand - (q << shift)
    const half = 1n << (shift - 1n)
    if (rest > half || (rest === half && q % 2n === 1n)) q += 1n
  }
  const magnitude = Number(q) + Math.max(unit + fractionBits - least, 0) * 2 ** fractionBits
  return sign + Math.min(magnitude, infinity)
}

/** F32 patterns of every exponent and both signs, with fractions at and around the ties of both formats. */
function patternsOfF32(): Uint32Array {
  const ties = [0x8000, 0x18000, 0x1000, 0x3000, 0x7f8000, 0x7ff000, 0x400000, 0x200000]
  const fractions = [0, 1, 0x7fffff, ...ties.flatMap((tie) => [tie - 1, tie, tie + 1])]
  const patterns = []
  let state = 1
  for (let head = 0; head < 512; head++) {
    for (const fraction of fractions) patterns.push(head * 0x800000 + fraction)
    for (let i = 0; i < 16; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0
      patterns.push(head * 0x800000 + (state >>> 9))
    }
  }
  return Uint32Array.from(patterns)
}

function words(dtype: Half, values: Float32Array | Float64Array): Uint16Array {
  const out = new Uint16Array(values.length)
  encode(dtype, values, new Uint8Array(out.buffer))
  return out
}

function encoded(dtype: Half, values: Float32Array): Uint8Array {
  return new Uint8Array(words(dtype, values).buffer)
}

/** Equality of large tiles: a matcher that could print them takes seconds. */
function expectBytes(received: Uint8Array, expected: Uint8Array): void {
  expect(received.length).toBe(expected.length)
  expect(received.findIndex((byte, i) => byte !== expected[i])).toBe(-1)
}

/** `bytes` of one dtype stored as another by each implementation of a kernel that does nothing else. */
function converted(from: FloatDType, to: FloatDType, bytes: Uint8Array): Uint8Array[] {
  const kernel = buildKernel([from], [{ expr: { op: 'input', index: 0 }, dtype: to }])
  const count = bytes.length / byteSize(from, 1)
  const tiles = [referenceKernel(kernel, count), simdKernel(kernel, count)!]
  return tiles.map((tile) => {
    tile.inputs[0]!.set(bytes)
    tile.run(count, [])
    return tile.outputs[0]!
  })
}

describe.each(['BF16', 'F16'] as const)('%s', (dtype) => {
  const bytes = new Uint8Array(ALL_WORDS.buffer)

  it.each([Float32Array, Float64Array])('decodes all 65,536 patterns', (Values) => {
    const out = new Values(0x10000)
    decode(dtype, bytes, out)
    expect(ALL_WORDS.filter((word) => !Object.is(out[word], numberOf(dtype, word)))).toHaveLength(0)
  })

  it('decodes and encodes back every pattern, NaN becoming canonical, in both kernels too', () => {
    const expected = ALL_WORDS.map((word) =>
      Number.isNaN(numberOf(dtype, word)) ? FORMATS[dtype].nan : word,
    )
    const out = new Float32Array(0x10000)
    decode(dtype, bytes, out)
    expectBytes(encoded(dtype, out), new Uint8Array(expected.buffer))
    for (const stored of converted(dtype, dtype, bytes)) expectBytes(stored, new Uint8Array(expected.buffer))
    const [wide, wideSimd] = converted(dtype, 'F32', bytes)
    expectBytes(wideSimd!, wide!)
    for (const stored of converted('F32', dtype, wide!)) expectBytes(stored, new Uint8Array(expected.buffer))
  })

  it('rounds F32 of every exponent to the nearest, ties to even, in both kernels too', () => {
    const patterns = patternsOfF32()
    const values = new Float32Array(patterns.buffer)
    const expected = Uint16Array.from(values, (x) => nearest(dtype, x))
    expectBytes(encoded(dtype, values), new Uint8Array(expected.buffer))
    for (const stored of converted('F32', dtype, new Uint8Array(patterns.buffer)))
      expectBytes(stored, new Uint8Array(expected.buffer))
  })

  it('rounds F64 once, where rounding by way of F32 would go wrong', () => {
    const halfway = [1, 1 + 2 ** -7, 2 ** -24, 3 * 2 ** -25, 65504, 2 ** -133, 2 ** -134].map(
      (x) => x * (1 + 2 ** -(FORMATS[dtype].fractionBits + 1)),
    )
    const near = halfway.flatMap((x) => [x, x * (1 + 2 ** -50), x * (1 - 2 ** -50), -x])
    const extremes = [1e300, -1e300, 5e-324, -5e-324, 0, -0, 65519.999999, 65520, 3.4028235e38, 3.39e38]
    const values = Float64Array.from([...near, ...extremes])
    expect(words(dtype, values)).toEqual(Uint16Array.from(values, (x) => nearest(dtype, x)))
    fc.assert(
      fc.property(fc.double(), (x) => {
        expect(words(dtype, Float64Array.of(x))[0]).toBe(nearest(dtype, x))
      }),
      { numRuns: 2000 },
    )
  })
})

describe('F32 and F64', () => {
  it('keep every value and make NaN canonical', () => {
    const values = Float64Array.of(0, -0, 1.1, Number.NEGATIVE_INFINITY, Number.NaN, 1e-310)
    const stored = new Uint8Array(48)
    encode('F64', values, stored)
    expect([...new BigUint64Array(stored.buffer)].slice(3, 5)).toEqual([
      0xfff0000000000000n,
      0x7ff8000000000000n,
    ])
    const back = new Float64Array(6)
    decode('F64', stored, back)
    expect(back).toEqual(values)
    const narrow = new Uint8Array(24)
    encode('F32', values, narrow)
    expect([...new Uint32Array(narrow.buffer)]).toEqual([
      0, 0x80000000, 0x3f8ccccd, 0xff800000, 0x7fc00000, 0,
    ])
  })

  it('every NaN that SIMD stores is canonical', () => {
    const patterns = Uint32Array.of(0x7f800001, 0xff800001, 0x7fffffff, 0xffffffff, 0xffc00000, 0x7fa00000)
    for (const [dtype, nan] of [
      ['F32', [0, 0, 0xc0, 0x7f]],
      ['BF16', [0xc0, 0x7f]],
      ['F16', [0, 0x7e]],
    ] as const)
      for (const stored of converted('F32', dtype, new Uint8Array(patterns.buffer)))
        expect([...stored]).toEqual(Array(6).fill(nan).flat())
  })
})

describe('buffers', () => {
  it('may start at any byte', () => {
    for (const dtype of ['BF16', 'F16', 'F32', 'F64'] as const) {
      const bytes = new Uint8Array(33).subarray(1, 1 + byteSize(dtype, 3))
      encode(dtype, Float32Array.of(1, -2, 0.5), bytes)
      const out = new Float32Array(3)
      decode(dtype, bytes, out)
      expect(out).toEqual(Float32Array.of(1, -2, 0.5))
    }
  })

  it('must have the right length', () => {
    expect(() => decode('F16', new Uint8Array(7), new Float32Array(4))).toThrow(ModelError)
    expect(() => encode('F32', new Float32Array(2), new Uint8Array(12))).toThrow(/8 bytes/)
  })
})
