import { byteSize, type FloatDType } from '@polygraft/tensor'
import { aligned, decode, uint16Of } from './float-formats.js'

/*
 * Magnitudes by rank without sorting: the bit pattern of |x| orders as |x| does, so the k-th largest is found by counting
 * its 16-bit digits from the most significant on, one pass over the data each (a radix selection). F16 and BF16 have one
 * digit, F32 two, F64 four. The first has 15 bits: the sign is left out, so +0 and -0 are one magnitude.
 */

/** The first digits of a magnitude, most significant first. */
export type Digits = readonly number[]

/** Digits of a magnitude stored as `dtype`. */
export function digitCount(dtype: FloatDType): number {
  return byteSize(dtype, 1) / 2
}

/** First digits of finite magnitudes lie below this; infinities and NaN have it or more. */
export function finiteBins(dtype: FloatDType): number {
  return dtype === 'F16' ? 0x7c00 : dtype === 'F64' ? 0x7ff0 : 0x7f80
}

/** The magnitude with all of `digits`. */
export function magnitudeOf(dtype: FloatDType, digits: Digits): number {
  const value = new Float64Array(1)
  decode(dtype, new Uint8Array(Uint16Array.from(digits.toReversed()).buffer), value)
  return value[0]!
}

/** Counts the next digits of magnitudes that begin alike. */
export interface DigitCounter {
  /** Takes in elements stored as the counter's dtype. */
  add(bytes: Uint8Array): void
  /** Elements by their next digit: 2^15 counters for the first digit, else 2^16. */
  bins(): Uint32Array
}

/** A counter of the digit after `prefix`, over the elements whose magnitudes begin with `prefix`. */
export function digitCounter(dtype: FloatDType, prefix: Digits): DigitCounter {
  const width = digitCount(dtype)
  const bins = new Uint32Array(0x10000)
  return {
    add(bytes) {
      const words = uint16Of(aligned(bytes, 2))
      if (prefix.length === 0) countFirst(words, width, bins)
      else if (prefix.length === 1) countSecond(words, width, prefix[0]!, bins)
      else countLater(words, width, prefix, bins)
    },
    bins: () => (prefix.length === 0 ? bins.slice(0, BANK).map((n, i) => n + bins[BANK + i]!) : bins),
  }
}

/** Where element number `nth` (from 0) of those with magnitude `digits` lies; where there are fewer, how many. */
export function findNth(
  dtype: FloatDType,
  bytes: Uint8Array,
  digits: Digits,
  nth: number,
): { readonly index: number } | { readonly passed: number } {
  const width = digitCount(dtype)
  const words = uint16Of(aligned(bytes, 2))
  let passed = 0
  for (let i = 0; i < words.length; i += width) {
    if ((words[i + width - 1]! & 0x7fff) !== digits[0] || !beginsWith(words, i, width, digits)) continue
    if (passed === nth) return { index: i / width }
    passed++
  }
  return { passed }
}

const BANK = 0x8000

// Elements of even and odd index count apart, in two banks: equal ones often follow each other, and a counter waits for its
// last store.
function countFirst(words: Uint16Array, width: number, bins: Uint32Array): void {
  const first = width - 1
  const pairs = words.length - (words.length % (2 * width))
  for (let i = first; i < pairs; i += 2 * width) {
    bins[words[i]! & 0x7fff]!++
    bins[(words[i + width]! & 0x7fff) | BANK]!++
  }
  if (pairs < words.length) bins[words[pairs + first]! & 0x7fff]!++
}

function countSecond(words: Uint16Array, width: number, prefix: number, bins: Uint32Array): void {
  for (let i = width - 1; i < words.length; i += width)
    if ((words[i]! & 0x7fff) === prefix) bins[words[i - 1]!]!++
}

function countLater(words: Uint16Array, width: number, prefix: Digits, bins: Uint32Array): void {
  for (let i = 0; i < words.length; i += width)
    if (beginsWith(words, i, width, prefix)) bins[words[i + width - 1 - prefix.length]!]!++
}

/** Whether the element at word `at` has these first digits. */
function beginsWith(words: Uint16Array, at: number, width: number, prefix: Digits): boolean {
  for (let d = 0; d < prefix.length; d++) {
    const word = words[at + width - 1 - d]!
    if ((d === 0 ? word & 0x7fff : word) !== prefix[d]) return false
  }
  return true
}
