/** Digits of 11 bits: three for F32, six for F64. */
const DIGIT_BITS = 11
const DIGITS = 2 ** DIGIT_BITS
const WORD_DIGITS = 3

/** Buffers for `rankMagnitudes` of up to `width` elements, and those bytes. */
export interface RankScratch {
  readonly order: Uint32Array
  readonly next: Uint32Array
  readonly counts: Uint32Array
}

export function createRankScratch(width: number): RankScratch {
  return { order: new Uint32Array(width), next: new Uint32Array(width), counts: new Uint32Array(DIGITS) }
}

/**
 * How many of the elements rank below each of `values` in magnitude: 0 for the smallest, values.length - 1 for the largest; of equal
 * ones that of lowest index ranks highest, -0 equals 0, and NaN is above infinity. By radix, lowest digits first: linear in the number of elements.
 * @param out As long as `values`; exact as F32 up to 2^24 elements.
 */
export function rankMagnitudes(
  values: Float32Array | Float64Array,
  out: Float32Array | Float64Array,
  scratch: RankScratch = createRankScratch(values.length),
): void {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.byteLength / 4)
  const each = words.length / values.length // words of an element, the lowest first
  let { order, next } = scratch
  // Equal ones keep this order: the last element is the smallest.
  for (let i = 0; i < values.length; i++) order[i] = values.length - 1 - i
  for (let digit = 0; digit < each * WORD_DIGITS; digit++) {
    const word = Math.floor(digit / WORD_DIGITS)
    const shift = (digit % WORD_DIGITS) * DIGIT_BITS
    const mask = word === each - 1 ? 0x7fffffff : 0xffffffff // without the sign
    sortByDigit(
      words.subarray(word),
      each,
      mask,
      shift,
      { order, next, counts: scratch.counts },
      values.length,
    )
    ;[order, next] = [next, order]
  }
  for (let rank = 0; rank < values.length; rank++) out[order[rank]!] = rank
}

/** `order` into `next`, by the bits of words[i * each] from `shift` on; equal digits stay in order. */
function sortByDigit(
  words: Uint32Array,
  each: number,
  mask: number,
  shift: number,
  { order, next, counts }: RankScratch,
  length: number,
): void {
  const digitOf = (i: number) => ((words[i * each]! & mask) >>> shift) & (DIGITS - 1)
  counts.fill(0)
  for (let k = 0; k < length; k++) counts[digitOf(k)]!++
  let before = 0
  for (let digit = 0; digit < DIGITS; digit++) {
    const count = counts[digit]!
    counts[digit] = before
    before += count
  }
  for (let k = 0; k < length; k++) {
    const i = order[k]!
    next[counts[digitOf(i)]!++] = i
  }
}
