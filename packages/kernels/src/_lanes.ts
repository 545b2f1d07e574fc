import type { FloatDType } from '@polygraft/tensor'
import { blendHalves, type Code, f32x4, i16x8, i32x4, v128 } from './_wasm.js'
import { CANONICAL_NAN } from './float-formats.js'

/*
 * Stored formats <-> four F32 lanes. Eight 16-bit elements lie in one v128 and are computed as two groups, the elements of
 * even and of odd index: that takes a shift and a mask, where taking the lower and upper half takes shuffles.
 * No step makes an F32 subnormal that the values themselves do not have: these cost 150 cycles on some machines.
 */

/** Keeps a value in a local; the result reads it. */
export type Let = (value: Code) => Code

const HIGH_HALVES = 0xffff0000
const SIGN = 0x80000000

/** BF16 words to the values of group 0 (even) or 1 (odd). */
export function decodeBf16(words: Code, group: number): Code {
  return group === 0 ? i32x4.shl(words, 16) : v128.and(words, v128.splat(HIGH_HALVES))
}

/**
 * F16 words to the values of a group. With n the value times 2^112 (so that infinities and NaN land on F32's own
 * exponent) a subnormal is read as n = 2^97 (1 + m) where 2^98 m is meant: that is 2n - 2^98, which is less than n
 * just for subnormals.
 */
export function decodeF16(keep: Let, words: Code, group: number): Code {
  const high = group === 0 ? keep(i32x4.shl(words, 16)) : words
  const magnitude = v128.and(i32x4.shrU(high, 3), v128.splat(0x0fffe000))
  const n = keep(i32x4.add(magnitude, v128.splat(224 << 23)))
  const subnormal = f32x4.sub(f32x4.add(n, n), v128.splat((127 + 98) << 23))
  const signedScale = v128.or(v128.and(high, v128.splat(SIGN)), v128.splat((127 - 112) << 23))
  return f32x4.mul(f32x4.pmin(n, subnormal), signedScale)
}

/**
 * What becomes of NaN: 'canonical'; or 'any', where the caller looks for what is not finite by itself. A NaN that has bits in
 * its lower half may then come out as a BF16 zero.
 */
export type Nan = 'canonical' | 'any'

/** The bits of `value` rounded to BF16, in the upper halves; the lower halves are rubbish. */
function roundBf16(value: Code, nan: Nan): Code {
  const odd = v128.and(i32x4.shrU(value, 16), v128.splat(1))
  const rounded = i32x4.add(i32x4.add(value, v128.splat(0x7fff)), odd)
  if (nan === 'any') return rounded
  return v128.select(v128.splat(CANONICAL_NAN.BF16 << 16), rounded, f32x4.ne(value, value))
}

/**
 * `value` rounded to F16, in the lower halves; the upper halves are zero. Adding 2^(e+13), with e the exponent that F16
 * gives the value, leaves its significand, rounded, as an integer at the end (M. Dukhan, the FP16 library). Where any will do,
 * NaN becomes infinity.
 */
function roundF16(keep: Let, value: Code, nan: Nan): Code {
  const a = keep(i32x4.minS(f32x4.abs(value), v128.splat((127 + 16) << 23))) // 2^16 is stored as infinity
  const exponent = keep(v128.and(i32x4.maxS(a, v128.splat((127 - 14) << 23)), v128.splat(0x7f800000)))
  const magic = keep(i32x4.add(exponent, v128.splat(13 << 23)))
  const significand = i32x4.sub(f32x4.add(a, magic), magic)
  const biased = i32x4.sub(i32x4.shrU(exponent, 13), v128.splat((127 - 14) << 10))
  const sign = i32x4.shrU(v128.and(value, v128.splat(SIGN)), 16)
  const rounded = v128.or(i32x4.add(significand, biased), sign)
  if (nan === 'any') return rounded
  return v128.select(v128.splat(CANONICAL_NAN.F16), rounded, f32x4.ne(value, value))
}

/** The two groups' values as eight stored words, in the order of the elements. */
export function pack16(keep: Let, dtype: 'BF16' | 'F16', even: Code, odd: Code, nan: Nan): Code {
  if (dtype === 'BF16') return blendHalves(i32x4.shrU(roundBf16(even, nan), 16), roundBf16(odd, nan))
  return v128.or(roundF16(keep, even, nan), i32x4.shl(roundF16(keep, odd, nan), 16))
}

/** F32 bits with every NaN canonical. */
export function canonicalF32(value: Code): Code {
  return v128.select(value, v128.splat(CANONICAL_NAN.F32), f32x4.eq(value, value))
}

/** Stored 16-bit words with every NaN canonical. */
export function canonical16(dtype: 'BF16' | 'F16', words: Code): Code {
  const infinity = twice(dtype === 'BF16' ? 0x7f80 : 0x7c00)
  const isNan = i16x8.gtS(v128.and(words, v128.splat(twice(0x7fff))), v128.splat(infinity))
  return v128.select(v128.splat(twice(CANONICAL_NAN[dtype])), words, isNan)
}

/** The value that `value` has after being stored as `dtype`. */
export function castLanes(keep: Let, dtype: FloatDType, value: Code): Code {
  if (dtype === 'BF16') return v128.and(roundBf16(value, 'canonical'), v128.splat(HIGH_HALVES))
  if (dtype === 'F16') return decodeF16(keep, keep(roundF16(keep, value, 'canonical')), 0)
  return value
}

function twice(word: number): number {
  return word * 0x10001
}
