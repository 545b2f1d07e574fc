import { decode, randomMask, randomValues } from '@polygraft/kernels'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

function mask(
  density: number,
  seed: number,
  name: string,
  begin: number,
  count: number,
  implementation: 'simd' | 'reference' = 'simd',
): number[] {
  const [bytes, values] = [new Uint8Array(count * 2), new Float32Array(count)]
  randomMask(density, seed, name, begin, bytes, implementation)
  decode('BF16', bytes, values)
  return [...values]
}

const densities = fc.oneof(
  fc.double({ min: 0, max: 1, noNaN: true }),
  fc.constantFrom(0, 1, 2 ** -32, 1 - 2 ** -33),
)
const begins = fc.oneof(
  fc.nat(100),
  fc.maxSafeInteger().map((x) => Math.floor(Math.abs(x) / 4096)),
  fc.nat(300).map((x) => 2 ** 34 - x),
)

describe('randomMask', () => {
  it('has the bits of its definition, for any density, start and length, across multiples of 2^32 blocks', () => {
    const property = fc.property(
      densities,
      fc.maxSafeInteger(),
      fc.string(),
      begins,
      fc.integer({ min: 0, max: 400 }),
      (density, seed, name, begin, count) => {
        const plain = mask(density, seed, name, begin, count, 'reference')
        expect(mask(density, seed, name, begin, count)).toEqual(plain)
      },
    )
    fc.assert(property, { numRuns: 300 })
  })

  it('does not depend on where tiles begin', () => {
    const whole = mask(0.3, 7, 'w', 0, 20_000)
    expect(mask(0.3, 7, 'w', 0, 20_000, 'reference')).toEqual(whole)
    for (const [begin, end] of [
      [1, 2],
      [5, 8198],
      [8191, 16_400],
      [19_999, 20_000],
    ] as const)
      expect(mask(0.3, 7, 'w', begin, end - begin)).toEqual(whole.slice(begin, end))
  })

  it('draws the words that the uniform distribution draws', () => {
    const uniform = new Float32Array(1000)
    randomValues('uniform', 1, 3, 'x', 0, uniform)
    // A word below 2^31 is a draw below 0.
    expect(mask(0.5, 3, 'x', 0, 1000)).toEqual([...uniform].map((x) => (x < 0 ? 1 : 0)))
  })

  it('has the density asked for, and nests', () => {
    const [few, many] = [mask(0.1, 1, 'n', 0, 100_000), mask(0.35, 1, 'n', 0, 100_000)]
    const share = (values: number[]) => values.reduce((a, b) => a + b) / values.length
    expect(share(few)).toBeCloseTo(0.1, 2)
    expect(share(many)).toBeCloseTo(0.35, 2)
    expect(few.every((x, i) => x <= many[i]!)).toBe(true)
    expect(share(mask(0, 1, 'n', 0, 1000))).toBe(0)
    expect(share(mask(1, 1, 'n', 0, 1000))).toBe(1)
  })

  it('differs by seed and by name, without correlation', () => {
    const of = (seed: number, name: string) => mask(0.5, seed, name, 0, 50_000)
    const a = of(1, 'a')
    for (const other of [of(2, 'a'), of(1, 'b'), of(-1, 'a')])
      expect(a.filter((x, i) => x === other[i]).length / a.length).toBeCloseTo(0.5, 1)
  })

  it('refuses what is no probability, and seeds that are no integers', () => {
    for (const density of [-0.1, 1.1, Number.NaN])
      expect(() => mask(density, 1, 'x', 0, 1)).toThrow('bad-density')
    expect(() => mask(0.5, 0.5, 'x', 0, 1)).toThrow('bad-seed')
  })
})
