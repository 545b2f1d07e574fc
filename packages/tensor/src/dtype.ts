/**
 * Element types of the safetensors format, in the order of the reference implementation's `Dtype` enum
 * (huggingface/safetensors, `tensor.rs`): the writer sorts tensors by it. The value is the width in bits.
 */
export const DTYPE_BITS = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const

/** A safetensors element type, spelt as in the file format. */
export type DType = keyof typeof DTYPE_BITS

/** The element types that arithmetic is defined on; all others are only ever copied, bit for bit. */
export type FloatDType = 'F64' | 'F32' | 'F16' | 'BF16'

/** Whether `dtype` names an element type of the safetensors format. */
export function isDType(dtype: string): dtype is DType {
  return Object.hasOwn(DTYPE_BITS, dtype)
}

/** Whether arithmetic is defined on `dtype` (F64, F32, F16, BF16). */
export function isFloat(dtype: DType): dtype is FloatDType {
  return dtype === 'BF16' || dtype === 'F32' || dtype === 'F16' || dtype === 'F64'
}

/** Number of elements of a shape; 1 for a scalar `[]`. Unit: elements. */
export function numel(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1)
}

/** Stored size of `elements` elements, in bytes. Sub-byte types must fill whole bytes; else the result is fractional. */
export function byteSize(dtype: DType, elements: number): number {
  return (elements * DTYPE_BITS[dtype]) / 8
}
