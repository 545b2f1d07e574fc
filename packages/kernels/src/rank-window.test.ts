import { BLOCK_ELEMENTS, MAX_COMMON, rankWindow, windowCounter } from '@polygraft/kernels'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

const bitsOf = (values: ArrayLike<number>) => new Uint32Array(Float32Array.from(values).buffer)
const value = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(0, -0, 0.5, -0.5, 0.75, 1, -1, 1e-40, Infinity, Number.NaN) },
  { weight: 1, arbitrary: fc.float() },
)
const finite = fc.constantFrom(0, 1e-40, 0.5, 0.75, 1, 2, 3.4028234663852886e38)

/** Sorted by hand. */
function expected(values: readonly number[], low: number, high: number, common: readonly number[]) {
  const magnitudes = [...Float32Array.from(values)].map(Math.abs)
  return {
    above: magnitudes.filter((x) => x > high && x < Infinity).length,
    nonFinite: magnitudes.filter((x) => !(x < Infinity)).length,
    common: common.map((one) => magnitudes.filter((x) => x === one).length),
    rest: magnitudes.filter((x) => x >= low && x <= high && !common.includes(x)),
  }
}

describe('windowCounter', () => {
  it.each(['simd', 'reference'] as const)('says where every element lies (%s)', (implementation) => {
    const counter = windowCounter(implementation)
    const property = fc.property(
      fc.array(value, { maxLength: 70 }),
      fc.uniqueArray(finite, { minLength: 1 }),
      fc.nat(MAX_COMMON),
      (values, bounds, most) => {
        const [low, high] = [Math.fround(Math.min(...bounds)), Math.fround(Math.max(...bounds))]
        const common = bounds.map(Math.fround).slice(0, most)
        counter.input.set(new Uint8Array(bitsOf(values).buffer))
        const bits = bitsOf([low, high, ...common])
        const window = { low: bits[0]!, high: bits[1]!, common: [...bits.slice(2)] }
        const { rest, ...counts } = counter.run(values.length, window)
        expect({ ...counts, rest: [...new Float32Array(rest.slice().buffer)] }).toEqual(
          expected(values, low, high, common),
        )
      },
    )
    fc.assert(property, { numRuns: 500 })
  })

  it('takes a whole block, all of it collected', () => {
    const counter = windowCounter()
    const values = Float32Array.from({ length: BLOCK_ELEMENTS }, (_, i) => (i % 2 ? -i : i))
    counter.input.set(new Uint8Array(values.buffer))
    const { rest } = counter.run(BLOCK_ELEMENTS, { low: 0, high: 0x7f7fffff, common: [] })
    expect(rest).toEqual(bitsOf(values.map(Math.abs)))
    expect(() => counter.run(BLOCK_ELEMENTS + 1, { low: 0, high: 0, common: [] })).toThrow('bad-length')
  })
})

describe('rankWindow', () => {
  it('has the quantile between its ends', () => {
    const sample = bitsOf(Float32Array.from({ length: 16384 }, (_, i) => Math.sin(i * i)))
    const sorted = sample.map((bits) => bits & 0x7fffffff).sort()
    const window = rankWindow(sample, 0.2, 4, 8)!
    const quantile = sorted[Math.floor(sample.length * 0.8)]!
    expect(window.common).toEqual([])
    expect(window.low).toBeLessThan(quantile)
    expect(window.high).toBeGreaterThan(quantile)
    expect(sorted.filter((x) => x >= window.low && x <= window.high).length).toBeLessThan(sample.length / 20)
  })

  it('counts what is frequent, and is not made where too much would be collected', () => {
    const few = bitsOf(Float32Array.from({ length: 16384 }, (_, i) => (i % 5) * (i % 2 ? -1 : 1)))
    expect(rankWindow(few, 0.3, 8, 8)).toEqual({
      low: bitsOf([3])[0],
      high: bitsOf([3])[0],
      common: [...bitsOf([3])],
    })
    const near = bitsOf(Float32Array.from({ length: 64 }, (_, i) => 1 + i / 1000))
    expect(rankWindow(near, 0.3, 8, 8)).toBeUndefined()
  })
})
