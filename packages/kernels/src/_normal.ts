/*
 * Box-Muller in +, -, *, / and sqrt on F64 alone (no `**` either). These are exactly defined by IEEE 754, while the last bits of
 * Math.log, Math.sin and Math.cos differ between engines: with them, one seed would give two checkpoints.
 */

const ODD = [1 / 23, 1 / 21, 1 / 19, 1 / 17, 1 / 15, 1 / 13, 1 / 11, 1 / 9, 1 / 7, 1 / 5, 1 / 3, 1]

/** log(n / 2^32) for an integer n in [1, 2^32]; relative error about 2e-16. Zero at n = 2^32. */
export function logOfFraction(n: number): number {
  let exponent = 32 - Math.clz32(n >= 0x100000000 ? 0xffffffff : n) // n = 2^exponent * m, m in [0.5, 1]
  let m = n / 2 / ((1 << (exponent - 1)) >>> 0)
  if (m < Math.SQRT1_2) {
    m *= 2
    exponent--
  }
  const s = (m - 1) / (m + 1) // log m = 2 atanh s, |s| < 0.1716
  const s2 = s * s
  let sum = ODD[0]!
  for (let i = 1; i < ODD.length; i++) sum = sum * s2 + ODD[i]!
  return (exponent - 32) * Math.LN2 + 2 * s * sum
}

const QUARTER = Math.PI / 2
const SIN = [
  1 / 355687428096000,
  -1 / 1307674368000,
  1 / 6227020800,
  -1 / 39916800,
  1 / 362880,
  -1 / 5040,
  1 / 120,
]
const COS = [1 / 20922789888000, -1 / 87178291200, 1 / 479001600, -1 / 3628800, 1 / 40320, -1 / 720, 1 / 24]

/**
 * Two independent standard normal draws from two random words (Box and Muller 1958), into out[0] and out[1].
 * Radius sqrt(-2 log((w0 + 1) / 2^32)), at most 6.7; angle a quarter turn times the top two bits of w1, plus the rest of it
 * spread over [-1/8, 1/8) turn, where the Taylor series of sine and cosine are short.
 */
export function normalPair(w0: number, w1: number, out: Float64Array): void {
  const radius = Math.sqrt(-2 * logOfFraction(w0 + 1))
  const x = ((w1 & 0x3fffffff) / 0x40000000 - 0.5) * QUARTER
  const x2 = x * x
  let sin = SIN[0]!
  for (let i = 1; i < SIN.length; i++) sin = sin * x2 + SIN[i]!
  sin = x * (1 + x2 * (sin * x2 - 1 / 6))
  let cos = COS[0]!
  for (let i = 1; i < COS.length; i++) cos = cos * x2 + COS[i]!
  cos = 1 + x2 * (cos * x2 - 0.5)
  const quarter = w1 >>> 30
  const odd = (quarter & 1) === 1
  const sign = quarter >= 2 ? -1 : 1
  out[0] = radius * sign * (odd ? -sin : cos)
  out[1] = radius * sign * (odd ? cos : sin)
}
