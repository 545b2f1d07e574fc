import { type Distribution, randomValues } from '@polygraft/kernels'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { logOfFraction, normalPair } from './_normal.js'
import { philox, type Words } from './_philox.js'
import { xxh64 } from './_xxh64.js'

function values(
  distribution: Distribution,
  scale: number,
  seed: number,
  name: string,
  begin: number,
  count: number,
) {
  const out = new Float32Array(count)
  randomValues(distribution, scale, seed, name, begin, out)
  return out
}

const mean = (x: Float32Array, of: (v: number) => number) => x.reduce((sum, v) => sum + of(v), 0) / x.length

describe('the generator under it', () => {
  it('is Philox4x32-10 (known answers of Random123)', () => {
    const known: readonly (readonly [Words, number, number, Words])[] = [
      [[0, 0, 0, 0], 0, 0, [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]],
      [
        [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
        0xffffffff,
        0xffffffff,
        [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
      ],
      [
        [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
        0xa4093822,
        0x299f31d0,
        [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
      ],
    ]
    for (const [counter, key0, key1, expected] of known) {
      const words: Words = [...counter]
      philox(words, key0, key1)
      expect(words).toEqual(expected)
    }
  })

  it('is keyed by XXH64 (published digests)', () => {
    const hash = (text: string, seed = 0n) => xxh64(new TextEncoder().encode(text), seed)
    expect(hash('')).toBe(0xef46db3751d8e999n)
    expect(hash('a')).toBe(0xd24ec4f1a98c6e5bn)
    expect(hash('abc')).toBe(0x44bc2cf5ad770999n)
    expect(hash('xxhash', 20141025n)).toBe(0xb559b98d844e0635n)
    expect(hash('Nobody inspects the spammish repetition')).toBe(0xfbcea83c8a378bf1n)
  })

  it('has logarithm, sine and cosine to the last places of F64', () => {
    const pair = new Float64Array(2)
    const word = fc.integer({ min: 0, max: 0xffffffff })
    fc.assert(
      fc.property(word, word, (w0, w1) => {
        const log = Math.log((w0 + 1) / 2 ** 32)
        expect(Math.abs(logOfFraction(w0 + 1) - log)).toBeLessThanOrEqual(4e-16 * Math.abs(log))
        normalPair(w0, w1, pair)
        const radius = Math.sqrt(-2 * log)
        const angle = ((w1 - 2 ** 29) / 2 ** 32) * 2 * Math.PI
        expect(Math.abs(pair[0]! - radius * Math.cos(angle))).toBeLessThan(1e-14)
        expect(Math.abs(pair[1]! - radius * Math.sin(angle))).toBeLessThan(1e-14)
      }),
      {
        numRuns: 5000,
        examples: [
          [0xffffffff, 0],
          [0, 0xffffffff],
          [0xfffffffe, 2 ** 30],
          [0x7fffffff, 2 ** 29],
          [0xb504f333, 1],
        ],
      },
    )
  })
})

describe('randomValues', () => {
  // Computed apart, in Python, with its math library.
  it('gives these very bits on every platform', () => {
    const bits = (x: Float32Array) => [...new Uint32Array(x.buffer)].map((word) => word.toString(16))
    expect(bits(values('normal', 0.02, 7, 'model.layers.0.mlp.gate.weight', 5, 6))).toEqual([
      'bca0afb8',
      '3b045cb9',
      '3d1fb876',
      'bc480719',
      '3c8eef4a',
      'bd02eebd',
    ])
    expect(bits(values('uniform', 0.02, 7, 'model.layers.0.mlp.gate.weight', 2 ** 40 + 1, 6))).toEqual([
      'bc84d6f7',
      '38e53333',
      'bc3fdee4',
      '3c6c14b8',
      'bbb671bd',
      '3c117fa4',
    ])
  })

  it('does not depend on how elements are cut into tiles', () => {
    const distribution = fc.constantFrom<Distribution>('normal', 'uniform')
    fc.assert(
      fc.property(
        distribution,
        fc.maxSafeInteger(),
        fc.string(),
        fc.nat(2 ** 35),
        fc.nat(40),
        fc.nat(40),
        (d, seed, name, begin, a, b) => {
          const whole = values(d, 0.5, seed, name, begin, a + b)
          expect(values(d, 0.5, seed, name, begin, a)).toEqual(whole.subarray(0, a))
          expect(values(d, 0.5, seed, name, begin + a, b)).toEqual(whole.subarray(a))
        },
      ),
    )
  })

  it('normal has the moments and the tails of a normal distribution', () => {
    const x = values('normal', 3, 1, 'n', 0, 200_000)
    expect(Math.abs(mean(x, (v) => v))).toBeLessThan(0.03)
    expect(Math.abs(mean(x, (v) => v * v) / 9 - 1)).toBeLessThan(0.02)
    expect(Math.abs(mean(x, (v) => v ** 4) / 81 - 3)).toBeLessThan(0.12)
    for (const [sigma, share] of [
      [1, 0.3173],
      [2, 0.0455],
      [3, 0.0027],
    ] as const)
      expect(Math.abs(mean(x, (v) => Number(Math.abs(v) > 3 * sigma)) - share)).toBeLessThan(0.004)
  })

  it('uniform fills [-scale, scale) evenly', () => {
    const x = values('uniform', 2, 1, 'u', 0, 100_000)
    const bins = new Array<number>(16).fill(0)
    for (const v of x) bins[Math.floor((v + 2) * 4)]!++
    for (const bin of bins) expect(Math.abs(bin - 6250)).toBeLessThan(400)
    expect(bins.length).toBe(16)
  })

  it('differs between seeds, names and neighbours, without correlation', () => {
    const n = 50_000
    const base = values('normal', 1, 0, 'a', 0, n)
    for (const other of [
      values('normal', 1, 1, 'a', 0, n),
      values('normal', 1, 0, 'b', 0, n),
      values('normal', 1, 0, 'a', 1, n),
    ]) {
      const correlation = base.reduce((sum, v, i) => sum + v * other[i]!, 0) / n
      expect(Math.abs(correlation)).toBeLessThan(0.02)
    }
  })

  it('takes negative and large seeds, and refuses others', () => {
    expect(values('uniform', 1, -1, 'a', 0, 4)).not.toEqual(values('uniform', 1, 1, 'a', 0, 4))
    expect(() => values('uniform', 1, 0.5, 'a', 0, 1)).toThrow(/seed/)
    expect(() => values('uniform', 1, 2 ** 53, 'a', 0, 1)).toThrow(/seed/)
  })
})
