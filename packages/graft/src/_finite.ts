import type { DType } from '@polygraft/tensor'
import { type Check, checkOf } from './verify-report.js'

/** Bits of the exponent: an element with all of them set is infinite or NaN. */
const EXPONENT: Readonly<Partial<Record<DType, number>>> = { BF16: 0x7f80, F16: 0x7c00, F32: 0x7f800000 }

/** Counts the elements that are infinite or NaN, tensor by tensor. F64, which is rare, is left out. */
export function createFiniteTally() {
  const wrong = new Map<string, number>()
  return {
    add(name: string, dtype: DType, bytes: Uint8Array): void {
      const exponent = EXPONENT[dtype]
      if (exponent === undefined) return
      const count = countSet(wordsOf(bytes, dtype), exponent)
      if (count > 0) wrong.set(name, (wrong.get(name) ?? 0) + count)
    },
    check: (): Check =>
      checkOf(
        'finite',
        [...wrong].map(([name, count]) => `${name}: ${count}`),
        'no element is infinite or NaN',
      ),
  }
}

/** Tiles begin with their buffer. */
function wordsOf({ buffer, byteLength }: Uint8Array, dtype: DType): Uint16Array | Uint32Array {
  return dtype === 'F32'
    ? new Uint32Array(buffer, 0, byteLength / 4)
    : new Uint16Array(buffer, 0, byteLength / 2)
}

function countSet(words: Uint16Array | Uint32Array, bits: number): number {
  let count = 0
  for (let i = 0; i < words.length; i++) if ((words[i]! & bits) === bits) count++
  return count
}
