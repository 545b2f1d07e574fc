import { byteSize, type FloatDType, ModelError } from '@polygraft/tensor'

/*
 * Stored floats <-> numbers. All conversions are exact or rounded once, to nearest, ties to even. Bytes are
 * little-endian, as in safetensors, and so are the typed arrays of every engine that runs WebAssembly.
 */

export type FloatArray = Float32Array | Float64Array

/** Bit patterns that every NaN is stored as after arithmetic. F64: the high word, the low one is zero. */
export const CANONICAL_NAN = { BF16: 0x7fc0, F16: 0x7e00, F32: 0x7fc00000, F64: 0x7ff80000 } as const

const float = new Float32Array(1)
const bits = new Uint32Array(float.buffer)
let halves: Float32Array | undefined

/**
 * Stored elements as numbers: out[i] = element i of `bytes`. Exact, but for F64 into a Float32Array (rounded once).
 * @throws ModelError 'bad-length' when `bytes` does not hold exactly out.length elements.
 */
export function decode(dtype: FloatDType, bytes: Uint8Array, out: FloatArray): void {
  checkLength(dtype, bytes, out)
  const source = aligned(bytes, byteSize(dtype, 1))
  if (dtype === 'F32') out.set(float32Of(source))
  else if (dtype === 'F64') out.set(float64Of(source))
  else if (dtype === 'F16') decodeF16(uint16Of(source), out)
  else decodeBf16(uint16Of(source), out)
}

/**
 * Numbers as stored elements, each rounded once (nearest, ties to even; overflow to infinity; subnormals kept);
 * every NaN becomes the canonical one.
 * @throws ModelError 'bad-length' when `out` does not hold exactly values.length elements.
 */
export function encode(dtype: FloatDType, values: FloatArray, out: Uint8Array): void {
  checkLength(dtype, out, values)
  const target = aligned(out, byteSize(dtype, 1))
  if (dtype === 'F32') encodeF32(values, float32Of(target))
  else if (dtype === 'F64') encodeF64(values, float64Of(target))
  else if (values instanceof Float32Array) encode16FromF32(dtype, values, uint16Of(target))
  else encode16FromF64(dtype, values, uint16Of(target))
  if (target !== out) out.set(target)
}

/** The number nearest to `value` (ties to even) that `dtype` can hold. */
export function roundTo(dtype: FloatDType, value: number): number {
  if (dtype === 'F64') return value
  if (dtype === 'F32') return Math.fround(value)
  const word = narrow(dtype, oddBits(value))
  if (dtype === 'F16') return halfValues()[word]!
  bits[0] = word << 16
  return float[0]!
}

/** The 16-bit pattern nearest to an F32 given as bits. */
function narrow(dtype: 'BF16' | 'F16', pattern: number): number {
  return dtype === 'BF16' ? bf16OfBits(pattern) : f16OfBits(pattern)
}

function bf16OfBits(pattern: number): number {
  if ((pattern & 0x7fffffff) > 0x7f800000) return CANONICAL_NAN.BF16
  return ((pattern + 0x7fff + ((pattern >>> 16) & 1)) >>> 16) & 0xffff
}

function f16OfBits(pattern: number): number {
  const sign = (pattern >>> 16) & 0x8000
  const a = pattern & 0x7fffffff
  if (a > 0x7f800000) return CANONICAL_NAN.F16
  if (a >= 0x47800000) return sign | 0x7c00 // >= 2^16
  if (a >= 0x38800000) return sign | ((a - 0x38000000 + 0xfff + ((a >>> 13) & 1)) >>> 13) // >= 2^-14; 65520 carries to Inf
  if (a <= 0x33000000) return sign // <= 2^-25: the tie goes to zero
  const shift = 126 - (a >>> 23) // significand * 2^-shift is the value in units of 2^-24
  const significand = (a & 0x7fffff) | 0x800000
  const half = 1 << (shift - 1)
  const odd = (significand >>> shift) & 1
  return sign | ((significand + half - 1 + odd) >>> shift)
}

/**
 * F64 to the bits of an F32 rounded to odd: rounding that once more to a much shorter format gives what rounding
 * the F64 directly would (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", section 3).
 */
function oddBits(value: number): number {
  float[0] = value
  const rounded = float[0]!
  const pattern = bits[0]!
  if (rounded === value || Number.isNaN(value) || (pattern & 1) === 1) return pattern
  return Math.abs(rounded) < Math.abs(value) ? pattern + 1 : pattern - 1
}

function decodeBf16(words: Uint16Array, out: FloatArray): void {
  if (out instanceof Float32Array) {
    const patterns = new Uint32Array(out.buffer, out.byteOffset, out.length)
    for (let i = 0; i < words.length; i++) patterns[i] = words[i]! << 16
    return
  }
  for (let i = 0; i < words.length; i++) {
    bits[0] = words[i]! << 16
    out[i] = float[0]!
  }
}

function decodeF16(words: Uint16Array, out: FloatArray): void {
  const values = halfValues()
  for (let i = 0; i < words.length; i++) out[i] = values[words[i]!]!
}

/** The value of every F16 pattern. 256 KiB, made when first needed. */
function halfValues(): Float32Array {
  halves ??= Float32Array.from({ length: 0x10000 }, (_, word) => {
    const exponent = (word >>> 10) & 31
    const fraction = word & 0x3ff
    const special = fraction === 0 ? Number.POSITIVE_INFINITY : Number.NaN
    const magnitude = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15)
    return (word & 0x8000 ? -1 : 1) * (exponent === 31 ? special : magnitude)
  })
  return halves
}

function encodeF32(values: FloatArray, out: Float32Array): void {
  out.set(values)
  const patterns = new Uint32Array(out.buffer, out.byteOffset, out.length)
  for (let i = 0; i < values.length; i++) if (Number.isNaN(values[i])) patterns[i] = CANONICAL_NAN.F32
}

function encodeF64(values: FloatArray, out: Float64Array): void {
  out.set(values)
  const words = new Uint32Array(out.buffer, out.byteOffset, out.length * 2)
  for (let i = 0; i < values.length; i++) {
    if (!Number.isNaN(values[i])) continue
    words[i * 2] = 0
    words[i * 2 + 1] = CANONICAL_NAN.F64
  }
}

function encode16FromF32(dtype: 'BF16' | 'F16', values: Float32Array, out: Uint16Array): void {
  const patterns = new Uint32Array(values.buffer, values.byteOffset, values.length)
  if (dtype === 'BF16') for (let i = 0; i < out.length; i++) out[i] = bf16OfBits(patterns[i]!)
  else for (let i = 0; i < out.length; i++) out[i] = f16OfBits(patterns[i]!)
}

function encode16FromF64(dtype: 'BF16' | 'F16', values: Float64Array, out: Uint16Array): void {
  for (let i = 0; i < out.length; i++) out[i] = narrow(dtype, oddBits(values[i]!))
}

function checkLength(dtype: FloatDType, bytes: Uint8Array, values: FloatArray): void {
  const expected = byteSize(dtype, values.length)
  if (bytes.length !== expected)
    throw new ModelError({
      code: 'bad-length',
      message: `The bytes do not hold ${values.length} elements of ${dtype}`,
      expected: `${expected} bytes`,
      received: `${bytes.length} bytes`,
    })
}

/** `bytes`, copied only when typed arrays of `width` bytes an element could not lie over them. */
export function aligned(bytes: Uint8Array, width: number): Uint8Array {
  return bytes.byteOffset % width === 0 ? bytes : new Uint8Array(bytes)
}

/** The 16-bit words of `bytes`, which begin at an even address. */
export function uint16Of(bytes: Uint8Array): Uint16Array {
  return new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2)
}

function float32Of(bytes: Uint8Array): Float32Array {
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
}

function float64Of(bytes: Uint8Array): Float64Array {
  return new Float64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8)
}
