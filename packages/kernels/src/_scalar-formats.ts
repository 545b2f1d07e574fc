import type { FloatDType } from '@polygraft/tensor'
import type { Let } from './_lanes.js'
import { type Code, f32, f64, i32, select } from './_wasm.js'
import { CANONICAL_NAN } from './float-formats.js'

/*
 * Stored formats <-> one F32 or F64. The formulas are those of `_lanes.ts`, an element at a time.
 */

/** What an element is computed in. */
export type Precision = 'F32' | 'F64'

const SIGN_LESS = 0x7fffffff

/** Keeps codes of each type in a local; the results read it. */
export interface Keep {
  readonly i32: Let
  readonly f32: Let
  readonly f64: Let
}

/** The value of a 16-bit word, as F32. */
export function decodeWord(keep: Keep, dtype: 'BF16' | 'F16', word: Code): Code {
  if (dtype === 'BF16') return f32.ofBits(i32.shl(word, i32.const(16)))
  const high = keep.i32(i32.shl(word, i32.const(16)))
  const magnitude = i32.and(i32.shrU(high, i32.const(3)), i32.const(0x0fffe000))
  const n = keep.f32(f32.ofBits(i32.add(magnitude, i32.const(224 << 23))))
  const subnormal = f32.sub(f32.add(n, n), f32.ofBits(i32.const((127 + 98) << 23)))
  const scale = i32.or(i32.and(high, i32.const(0x80000000)), i32.const((127 - 112) << 23))
  return f32.mul(f32.min(n, subnormal), f32.ofBits(scale))
}

/** The 16-bit word nearest to the F32 with these bits, NaN canonical. */
function encodeBits(keep: Keep, dtype: 'BF16' | 'F16', bits: Code): Code {
  const isNan = i32.gtS(i32.and(bits, i32.const(SIGN_LESS)), i32.const(0x7f800000))
  const rounded = dtype === 'BF16' ? roundBf16(bits) : roundF16(keep, bits)
  return keep.i32(select(i32.const(CANONICAL_NAN[dtype]), rounded, isNan))
}

function roundBf16(bits: Code): Code {
  const odd = i32.and(i32.shrU(bits, i32.const(16)), i32.const(1))
  return i32.shrU(i32.add(i32.add(bits, i32.const(0x7fff)), odd), i32.const(16))
}

function roundF16(keep: Keep, bits: Code): Code {
  const magnitude = keep.i32(i32.and(bits, i32.const(SIGN_LESS)))
  const most = i32.const((127 + 16) << 23) // 2^16 is stored as infinity
  const a = keep.i32(select(magnitude, most, i32.ltS(magnitude, most)))
  const least = i32.const((127 - 14) << 23)
  const exponent = keep.i32(i32.and(select(a, least, i32.gtS(a, least)), i32.const(0x7f800000)))
  const magic = keep.i32(i32.add(exponent, i32.const(13 << 23)))
  const significand = i32.sub(i32.bitsOfF32(f32.add(f32.ofBits(a), f32.ofBits(magic))), magic)
  const biased = i32.sub(i32.shrU(exponent, i32.const(13)), i32.const((127 - 14) << 10))
  const sign = i32.and(i32.shrU(bits, i32.const(16)), i32.const(0x8000))
  return i32.or(i32.add(significand, biased), sign)
}

/** `value` as a stored word. */
export function encodeWord(keep: Keep, precision: Precision, dtype: 'BF16' | 'F16', value: Code): Code {
  return encodeBits(keep, dtype, precision === 'F32' ? keep.i32(i32.bitsOfF32(value)) : oddBits(keep, value))
}

/** F64 to the bits of an F32 rounded to odd: see `float-formats.ts`. NaN stays one. */
function oddBits(keep: Keep, value: Code): Code {
  const rounded = keep.f32(f32.ofF64(value))
  const bits = keep.i32(i32.bitsOfF32(rounded))
  const wide = keep.f64(f64.ofF32(rounded))
  const isDone = i32.or(f64.eq(wide, value), i32.and(bits, i32.const(1)))
  const step = select(i32.const(1), i32.const(-1), f64.lt(f64.abs(wide), f64.abs(value)))
  return keep.i32(select(bits, i32.add(bits, step), isDone))
}

/** The value that `value` has after being stored as `dtype`. */
export function castValue(keep: Keep, precision: Precision, dtype: FloatDType, value: Code): Code {
  if (dtype === 'F64' || dtype === precision) return value
  if (dtype === 'F32') return f64.ofF32(f32.ofF64(value))
  const cast = decodeWord(keep, dtype, encodeWord(keep, precision, dtype, value))
  return precision === 'F32' ? cast : f64.ofF32(cast)
}

/** A value to be stored as it is, NaN canonical. */
export function canonicalValue(precision: Precision, value: Code): Code {
  const { eq } = precision === 'F32' ? f32 : f64
  const nan = precision === 'F32' ? f32.ofBits(i32.const(CANONICAL_NAN.F32)) : f64.const(Number.NaN)
  return select(value, nan, eq(value, value))
}
