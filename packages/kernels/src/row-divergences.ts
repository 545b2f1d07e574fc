import type { FloatArray } from './float-formats.js'

/** Takes two matrices in pieces, in order, and gives one number for each row. */
export interface RowDivergences {
  /** The next elements of both. */
  add(a: FloatArray, b: FloatArray): void
  /** One for each row. Whole rows must have been added. */
  result(): Float64Array
}

/** Added to each probability, so that none is 0. */
const EPSILON = 1e-8

/**
 * The divergence of each row of `width` elements of `a` from that of `b`, both taken for logits: with p = softmax(a) + 1e-8 and
 * q = softmax(b) + 1e-8, KL(p, q) = sum_j p_j ln(p_j / q_j), in F64 from left to right; at least 0. NaN where a row has an element that is
 * not finite. Exponential and logarithm are the JavaScript engine's: between engines the last bit may differ.
 */
export function rowDivergences(width: number): RowDivergences {
  const [a, b] = [new Float64Array(width), new Float64Array(width)]
  const done: number[] = []
  let at = 0
  return {
    add(nextA, nextB) {
      for (let used = 0; used < nextA.length; ) {
        const size = Math.min(width - at, nextA.length - used)
        a.set(nextA.subarray(used, used + size), at)
        b.set(nextB.subarray(used, used + size), at)
        used += size
        at += size
        if (at < width) return
        done.push(divergence(a, b))
        at = 0
      }
    },
    result: () => Float64Array.from(done),
  }
}

/** Overwrites both with their exponentials. */
function divergence(a: Float64Array, b: Float64Array): number {
  const [sumA, sumB] = [exponentials(a), exponentials(b)]
  let sum = 0
  for (let j = 0; j < a.length; j++) {
    const [p, q] = [a[j]! / sumA + EPSILON, b[j]! / sumB + EPSILON]
    sum += p * Math.log(p / q)
  }
  return Math.max(sum, 0)
}

/** e^(x - max) in place of x; their sum. NaN where an element is not finite. */
function exponentials(values: Float64Array): number {
  let max = Number.NEGATIVE_INFINITY
  let sum = 0
  for (const x of values) {
    if (x - x !== 0) return Number.NaN
    if (x > max) max = x
  }
  for (let j = 0; j < values.length; j++) {
    values[j] = Math.exp(values[j]! - max)
    sum += values[j]!
  }
  return sum
}
