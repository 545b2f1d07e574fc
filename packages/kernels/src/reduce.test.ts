import {
  addGram,
  addMoments,
  addStatistics,
  BLOCK_ELEMENTS,
  createGram,
  createMoments,
  createStatistics,
  decode,
  encode,
  gramReducer,
  pairReducer,
  statisticsReducer,
} from '@polygraft/kernels'
import type { FloatDType } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

const NARROW = ['F32', 'F16', 'BF16'] as const
const DTYPES: readonly FloatDType[] = [...NARROW, 'F64']
const SPECIAL = [0, -0, 1, -1, 1e-40, -6e-8, 65504, 3e38, Number.NaN, Infinity, -Infinity]

/** Values that occur, and now and then those that should not. */
function fill(dtype: FloatDType, bytes: Uint8Array, count: number, seed: number): Float64Array {
  let state = seed | 0
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0
    return (state ^ (state >>> 15)) >>> 0
  }
  const values = Float64Array.from({ length: count }, () => {
    if (random() % 16 === 0) return SPECIAL[random() % SPECIAL.length]!
    return (random() / 2 ** 31 - 1) * 2 ** ((random() % 20) - 10)
  })
  const stored = bytes.subarray(0, (count * bytes.length) / BLOCK_ELEMENTS)
  encode(dtype, values, stored)
  decode(dtype, stored, values)
  return values
}

describe('pairReducer', () => {
  it('sums squares, products and differences', () => {
    const reducer = pairReducer(['F32', 'F32'])
    encode('F32', Float32Array.of(1, 2, -0, 3), reducer.inputs[0]!.subarray(0, 16))
    encode('F32', Float32Array.of(1, 4, 0, -1), reducer.inputs[1]!.subarray(0, 16))
    const expected = { sumA2: 14, sumB2: 18, dot: 6, sumDelta2: 20, changed: 2, maxAbsDelta: 4, nonFinite: 0 }
    expect(reducer.run(4)).toEqual({ count: 4, ...expected })
  })

  it('sets NaN and infinities aside', () => {
    for (const implementation of ['simd', 'reference'] as const) {
      const reducer = pairReducer(['F32', 'F32'], implementation)
      const [a, b] = reducer.inputs.map((bytes) => bytes.subarray(0, 40)) as [Uint8Array, Uint8Array]
      encode('F32', Float32Array.of(NaN, 1, Infinity, 2, 0, 0, 0, 0, Infinity, 1), a)
      encode('F32', Float32Array.of(1, -Infinity, Infinity, 2, 0, 0, 0, 0, 0, NaN), b)
      expect(reducer.run(10)).toMatchObject({ count: 10, nonFinite: 5, sumA2: 4, changed: 0, maxAbsDelta: 0 })
    }
  })

  it('gives the same bits in SIMD and in TypeScript, for any dtypes and count', () => {
    const pairs = DTYPES.flatMap((a) => DTYPES.map((b) => [a, b] as const))
    const reducers = pairs.map((dtypes) => [pairReducer(dtypes), pairReducer(dtypes, 'reference')] as const)
    const property = fc.property(
      fc.nat(pairs.length - 1),
      fc.nat(5000),
      fc.integer(),
      fc.boolean(),
      (pair, count, seed, near) => {
        const [simd, reference] = reducers[pair]!
        const dtypes = pairs[pair]!
        for (const [i, dtype] of dtypes.entries()) {
          fill(dtype, simd.inputs[i]!, count, seed + (near && dtypes[0] === dtypes[1] ? 0 : i))
          reference.inputs[i]!.set(simd.inputs[i]!)
        }
        const moments = reference.run(count)
        expect(simd.run(count)).toStrictEqual(moments)
        expect(simd.run(count), 'again').toStrictEqual(moments)
      },
    )
    fc.assert(property, { numRuns: 150 })
  })

  it('agrees with plain sums over a full block', () => {
    const reducer = pairReducer(['BF16', 'F32'])
    const a = fill('BF16', reducer.inputs[0]!, BLOCK_ELEMENTS, 1)
    const b = fill('F32', reducer.inputs[1]!, BLOCK_ELEMENTS, 2)
    const expected = createMoments()
    for (let i = 0; i < a.length; i++) {
      const finite = Number.isFinite(a[i]) && Number.isFinite(b[i])
      const [x, y] = finite ? [a[i]!, b[i]!] : [0, 0]
      addMoments(expected, {
        count: 1,
        sumA2: x * x,
        sumB2: y * y,
        dot: x * y,
        sumDelta2: (y - x) ** 2,
        changed: Number(x !== y),
        maxAbsDelta: Math.abs(y - x),
        nonFinite: Number(!finite),
      })
    }
    const { sumA2, sumB2, dot, sumDelta2, ...exact } = reducer.run(BLOCK_ELEMENTS)
    expect(exact).toEqual(pick(expected, exact))
    for (const [key, sum] of Object.entries({ sumA2, sumB2, sumDelta2, dot }))
      expect(Math.abs(sum / expected[key as 'dot'] - 1)).toBeLessThan(1e-12)
  })

  it('refuses more than a block', () => {
    expect(() => pairReducer(['F32', 'F32']).run(BLOCK_ELEMENTS + 1)).toThrow(/bad-length/)
  })
})

describe('statisticsReducer', () => {
  it('gives norms and extrema, and says what is not finite', () => {
    const reducer = statisticsReducer('BF16')
    encode('BF16', Float32Array.of(1, -2, 0, -0, NaN, Infinity), reducer.inputs[0]!.subarray(0, 12))
    const expected = { sum: -1, sumAbs: 3, sumSquares: 5, min: -2, max: 1, zeros: 2, nonFinite: 2 }
    expect(reducer.run(6)).toEqual({ count: 6, ...expected })
    expect(reducer.run(0)).toEqual(createStatistics())
  })

  it('gives the same bits in SIMD and in TypeScript, for any dtype and count', () => {
    const reducers = DTYPES.map(
      (dtype) => [statisticsReducer(dtype), statisticsReducer(dtype, 'reference')] as const,
    )
    const property = fc.property(
      fc.nat(DTYPES.length - 1),
      fc.nat(5000),
      fc.integer(),
      (which, count, seed) => {
        const [simd, reference] = reducers[which]!
        const values = fill(DTYPES[which]!, simd.inputs[0]!, count, seed)
        reference.inputs[0]!.set(simd.inputs[0]!)
        const statistics = reference.run(count)
        expect(simd.run(count)).toStrictEqual(statistics)
        const finite = values.filter(Number.isFinite)
        expect(statistics.nonFinite).toBe(count - finite.length)
        expect(statistics.max).toBe(finite.reduce((most, x) => Math.max(most, x), -Infinity))
        expect(statistics.zeros).toBe(finite.filter((x) => x === 0).length)
      },
    )
    fc.assert(property, { numRuns: 100 })
  })

  it('adds blocks', () => {
    const into = createStatistics()
    const reducer = statisticsReducer('F32')
    for (const value of [3, -5]) {
      encode('F32', Float32Array.of(value), reducer.inputs[0]!.subarray(0, 4))
      addStatistics(into, reducer.run(1))
    }
    const expected = { count: 2, sum: -2, sumAbs: 8, sumSquares: 34, min: -5, max: 3, zeros: 0, nonFinite: 0 }
    expect(into).toEqual(expected)
  })
})

describe('gramReducer', () => {
  it('has the products of every two, and leaves an index out where one is not finite', () => {
    for (const implementation of ['simd', 'reference'] as const) {
      const reducer = gramReducer(['F32', 'F32', 'BF16'], implementation)
      const rows = [
        [1, 2, NaN, 3, 0, 0, 0, 0, 1],
        [1, -1, 5, 2, 0, 0, 0, 0, 0],
        [4, 0, 1, 1, 0, Infinity, 0, 0, 2],
      ]
      for (const [i, row] of rows.entries())
        encode(
          i < 2 ? 'F32' : 'BF16',
          Float32Array.from(row),
          reducer.inputs[i]!.subarray(0, i < 2 ? 36 : 18),
        )
      const { products, ...counts } = reducer.run(9)
      expect(counts).toEqual({ count: 9, nonFinite: 2 })
      expect([...products]).toEqual([15, 5, 9, 6, 6, 21])
    }
    const sum = createGram(1)
    for (const value of [3, 4])
      addGram(sum, { count: 1, products: Float64Array.of(value * value), nonFinite: 0 })
    expect(sum).toEqual({ count: 2, products: Float64Array.of(25), nonFinite: 0 })
  })

  it('gives the same bits in SIMD and in TypeScript, for any dtypes, number of tensors and count', () => {
    const property = fc.property(
      fc.array(fc.constantFrom(...DTYPES), { minLength: 1, maxLength: 6 }),
      fc.nat(300),
      fc.integer(),
      (dtypes, count, seed) => {
        const [simd, reference] = [gramReducer(dtypes), gramReducer(dtypes, 'reference')]
        for (const [i, dtype] of dtypes.entries()) {
          fill(dtype, simd.inputs[i]!, count, seed + i)
          reference.inputs[i]!.set(simd.inputs[i]!)
        }
        const grams = reference.run(count)
        expect(simd.run(count)).toStrictEqual(grams)
        expect(simd.run(count), 'again').toStrictEqual(grams)
      },
    )
    fc.assert(property, { numRuns: 60 })
  })
})

function pick<T extends object>(from: T, like: object): Partial<T> {
  return Object.fromEntries(Object.entries(from).filter(([key]) => key in like)) as Partial<T>
}
