import {
  decode,
  digitCount,
  digitCounter,
  encode,
  findNth,
  finiteBins,
  magnitudeOf,
} from '@polygraft/kernels'
import { byteSize, type FloatDType } from '@polygraft/tensor'
import fc from 'fast-check'
import { expect, it } from 'vitest'

const DTYPES: readonly FloatDType[] = ['BF16', 'F16', 'F32', 'F64']
const value = fc.oneof(
  fc.double(),
  fc.constantFrom(0, -0, 1, -1, 1e-40, 5e-324, 3e38, Infinity, Number.NaN, 0.1, 0.1 + 2e-9),
)

/** The values as `dtype` stores them, and the bytes. */
function stored(dtype: FloatDType, values: readonly number[]) {
  const bytes = new Uint8Array(byteSize(dtype, values.length))
  const rounded = Float64Array.from(values)
  encode(dtype, rounded, bytes)
  decode(dtype, bytes, rounded)
  return { bytes, rounded }
}

function count(dtype: FloatDType, bytes: Uint8Array, prefix: readonly number[]): Uint32Array {
  const counter = digitCounter(dtype, prefix)
  counter.add(bytes)
  return counter.bins()
}

it('counts digit after digit down to each magnitude', () => {
  const property = fc.property(
    fc.constantFrom(...DTYPES),
    fc.array(value, { minLength: 1 }),
    (dtype, values) => {
      const { bytes, rounded } = stored(dtype, values)
      const wanted = Math.abs(rounded[0]!)
      const digits: number[] = []
      for (let d = 0; d < digitCount(dtype); d++) {
        const bins = count(dtype, bytes, digits)
        digits.push(count(dtype, bytes.subarray(0, byteSize(dtype, 1)), digits).indexOf(1))
        if (d === 0) expect(bins.reduce((sum, n) => sum + n, 0)).toBe(values.length)
        if (digits.length < digitCount(dtype)) continue
        expect(magnitudeOf(dtype, digits)).toBe(wanted)
        if (!Number.isNaN(wanted))
          expect(bins[digits.at(-1)!]).toBe(rounded.filter((x) => Math.abs(x) === wanted).length)
      }
      expect(digits[0]! < finiteBins(dtype)).toBe(Number.isFinite(wanted))
    },
  )
  fc.assert(property, { numRuns: 300 })
})

it('finds the nth of equal magnitudes', () => {
  for (const dtype of DTYPES) {
    const { bytes } = stored(dtype, [2, -1, 0.5, 1, 1])
    const one =
      dtype === 'F16'
        ? [0x3c00]
        : dtype === 'F64'
          ? [0x3ff0, 0, 0, 0]
          : dtype === 'F32'
            ? [0x3f80, 0]
            : [0x3f80]
    expect([0, 1, 2].map((nth) => findNth(dtype, bytes, one, nth))).toEqual([
      { index: 1 },
      { index: 3 },
      { index: 4 },
    ])
    expect(findNth(dtype, bytes, one, 3)).toEqual({ passed: 3 })
  }
})
