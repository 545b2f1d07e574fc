import type { Let } from './_lanes.js'
import { type Code, f32x4, i32x4, v128 } from './_wasm.js'

/*
 * e^x in F32, for SIMD and in plain TypeScript, the same to the bit: x = n ln 2 + r, e^r by a polynomial, times 2^n (the
 * method and coefficients of the Cephes library's expf, S. Moshier). Within 2 units in the last place; 0 below -87.33, and held at
 * e^88.02 above.
 */

const LOWEST = Math.fround(-87.33)
const HIGHEST = Math.fround(88.02)
const LOG2_E = Math.fround(Math.LOG2E)
/** ln 2 in two parts, the first exact when multiplied by n. */
const LN2_HIGH = Math.fround(0.693359375)
const LN2_LOW = Math.fround(-2.1219444e-4)
/** Of r^2, from the highest power down. */
const COEFFICIENTS = [
  1.98756915e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1,
].map(Math.fround)

const float = new Float32Array(1)
const bits = new Int32Array(float.buffer)

/** A constant in all four lanes. */
export function splatF32(value: number): Code {
  float[0] = value
  return v128.splat(bits[0]!)
}

/** e^x in four lanes. */
export function exponential(keep: Let, x: Code): Code {
  const { add, sub, mul } = f32x4
  const given = keep(x)
  const clamped = keep(f32x4.pmin(f32x4.pmax(given, splatF32(LOWEST)), splatF32(HIGHEST)))
  const n = keep(f32x4.nearest(mul(clamped, splatF32(LOG2_E))))
  const r = keep(sub(sub(clamped, mul(n, splatF32(LN2_HIGH))), mul(n, splatF32(LN2_LOW))))
  const [first, ...others] = COEFFICIENTS.map(splatF32) as [Code, ...Code[]]
  const polynomial = others.reduce((sum, coefficient) => keep(add(mul(sum, r), coefficient)), first)
  const power = add(add(mul(mul(polynomial, r), r), r), splatF32(1))
  const scale = i32x4.shl(i32x4.add(i32x4.truncateF32(n), v128.splat(127)), 23)
  return v128.andnot(mul(power, scale), f32x4.lt(given, splatF32(LOWEST)))
}

/** e^x, as `exponential` gives it. */
export function exponentialF32(x: number): number {
  const f = Math.fround
  if (x < LOWEST) return 0
  const clamped = Number.isNaN(x) ? x : Math.min(x, HIGHEST)
  const n = nearest(f(clamped * LOG2_E))
  const r = f(f(clamped - f(n * LN2_HIGH)) - f(n * LN2_LOW))
  const polynomial = COEFFICIENTS.reduce(
    (sum, coefficient, i) => (i === 0 ? coefficient : f(f(sum * r) + coefficient)),
    0,
  )
  const power = f(f(f(f(polynomial * r) * r) + r) + 1)
  return f(power * 2 ** n)
}

/** To the nearest whole number, ties to even. */
function nearest(x: number): number {
  const rounded = Math.round(x)
  return Math.abs(x % 1) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded
}
