import {
  createKernelMemory,
  createMatmul,
  decode,
  encode,
  MATMUL_SCRATCH_BYTES,
  packedBytes,
  packPanels,
  randomValues,
  referenceProduct,
  unpackRow,
} from '@polygraft/kernels'
import { byteSize } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

const FORMS = ['NT', 'NN', 'TN'] as const
const DTYPES = ['F32', 'BF16', 'F16'] as const
const A = MATMUL_SCRATCH_BYTES

/** Sizes around the tile of 4 rows, the panel of 8 columns, groups of 4 panels and the blocks of 128, 256 and 512. */
const size = (large: number) =>
  fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: large - 3, max: large + 20 }))

/** Three matrices one after the other in a memory. */
function place(m: number, n: number, k: number, seed: number, shared = false) {
  const [b, c] = [A + m * k * 4, A + (m * k + n * k) * 4]
  const memory = createKernelMemory(c + m * n * 4, shared)
  const floats = (address: number, count: number) => new Float32Array(memory.buffer, address, count)
  randomValues('uniform', 2, seed, 'operands', 0, floats(A, m * k + n * k + m * n))
  return { memory, b, c, floats, matmul: createMatmul(memory, 0) }
}

describe('multiply', () => {
  it('gives the bits of the reference for any size, form and number of parts', () => {
    const property = fc.property(
      ...[size(128), size(512), size(256), fc.constantFrom(...FORMS), fc.boolean()],
      ...[fc.integer({ min: 1, max: 5 }), fc.nat()],
      (
        m: number,
        n: number,
        k: number,
        form: (typeof FORMS)[number],
        adds: boolean,
        parts: number,
        seed: number,
      ) => {
        if (m * n * k > 3e6) return
        const { memory, b, c, floats, matmul } = place(m, n, k, seed)
        const [x, y, expected] = [floats(A, m * k), floats(b, n * k), floats(c, m * n).slice()]
        const left = (row: number, i: number) => x[form === 'TN' ? i * m + row : row * k + i]!
        const right = (column: number, i: number) => y[form === 'NT' ? column * k + i : i * n + column]!
        referenceProduct([m, n, k], left, right, expected, adds)
        for (let part = 0; part < parts; part++)
          matmul.multiply({ form, m, n, k, a: A, b, c, adds }, part, parts)
        expect(floats(c, m * n)).toEqual(expected)
        expect(memory.buffer.byteLength).toBeGreaterThan(0)
      },
    )
    fc.assert(property as fc.IProperty<unknown>, { numRuns: 60 })
  })

  it('reads and writes matrices within larger ones', () => {
    const [m, n, k, stride] = [5, 11, 7, 13]
    for (const form of FORMS) {
      const { b, c, floats, matmul } = place(20, 20, 20, 3)
      const [x, y, all] = [floats(A, 400), floats(b, 400), floats(c, 400)]
      const expected = new Float32Array(m * n)
      const left = (row: number, i: number) => x[form === 'TN' ? i * stride + row : row * stride + i]!
      const right = (column: number, i: number) =>
        y[form === 'NT' ? column * stride + i : i * stride + column]!
      referenceProduct([m, n, k], left, right, expected)
      const before = all.slice()
      const strides = { aStride: stride, bStride: stride, cStride: stride }
      matmul.multiply({ form, m, n, k, a: A, b, c, ...strides })
      for (let i = 0; i < 400; i++) {
        const [row, column] = [Math.floor(i / stride), i % stride]
        const inside = row < m && column < n
        expect(all[i]).toBe(inside ? expected[row * n + column] : before[i])
      }
    }
  })
})

describe('multiplyPacked', () => {
  it.each(DTYPES)('gives the bits of the reference from %s panels, whatever M and the parts', (dtype) => {
    const property = fc.property(
      fc.oneof(fc.constantFrom(1, 2, 3), size(128)),
      ...[size(64), size(256), fc.boolean(), fc.integer({ min: 1, max: 4 }), fc.nat()],
      (m: number, n: number, k: number, adds: boolean, parts: number, seed: number) => {
        const { memory, stored, matmul, b, c, floats } = placePacked(dtype, m, n, k, seed)
        const [x, expected] = [floats(A, m * k), floats(c, m * n).slice()]
        referenceProduct(
          [m, n, k],
          (row, i) => x[row * k + i]!,
          (column, i) => stored[column * k + i]!,
          expected,
          adds,
        )
        for (let part = 0; part < parts; part++)
          matmul.multiplyPacked({ m, n, k, a: A, b, dtype, c, adds }, part, parts)
        expect(new Float32Array(memory.buffer, c, m * n)).toEqual(expected)
      },
    )
    fc.assert(property as fc.IProperty<unknown>, { numRuns: 60 })
  })

  it('works in a memory that threads share, and after it has grown', () => {
    const { memory, b, c, floats, matmul } = place(6, 9, 300, 5, true)
    memory.grow(1)
    const run = () => {
      matmul.multiply({ form: 'NT', m: 6, n: 9, k: 300, a: A, b, c })
      return floats(c, 54).slice()
    }
    const expected = new Float32Array(54)
    const [x, y] = [floats(A, 1800), floats(b, 2700)]
    referenceProduct(
      [6, 9, 300],
      (r, i) => x[r * 300 + i]!,
      (r, i) => y[r * 300 + i]!,
      expected,
    )
    expect(run()).toEqual(expected)
    memory.grow(1)
    expect(run()).toEqual(expected)
  })
})

it.each(DTYPES)('packed %s rows come back as they were', (dtype) => {
  const [n, k] = [19, 5]
  const bytes = Uint8Array.from({ length: byteSize(dtype, n * k) }, (_, i) => i * 7)
  const packed = new Uint8Array(packedBytes(dtype, n, k))
  const rowBytes = byteSize(dtype, k)
  packPanels(dtype, bytes.subarray(0, 16 * rowBytes), 0, k, packed)
  packPanels(dtype, bytes.subarray(16 * rowBytes), 16, k, packed)
  for (let row = 0; row < n; row++) {
    const out = new Uint8Array(rowBytes)
    unpackRow(dtype, packed, row, k, out)
    expect(out).toEqual(bytes.subarray(row * rowBytes, (row + 1) * rowBytes))
  }
})

/** a and c as F32, b packed as `dtype`; `stored` are b's values. */
function placePacked(dtype: (typeof DTYPES)[number], m: number, n: number, k: number, seed: number) {
  const { memory, b, floats } = place(m, n, k, seed)
  const bytes = new Uint8Array(byteSize(dtype, n * k))
  encode(dtype, floats(b, n * k), bytes)
  const stored = new Float32Array(n * k)
  decode(dtype, bytes, stored)
  const c = b + packedBytes(dtype, n, k)
  memory.grow(Math.ceil((packedBytes(dtype, n, k) + m * n * 4) / 65536))
  packPanels(dtype, bytes, 0, k, new Uint8Array(memory.buffer, b, packedBytes(dtype, n, k)))
  const grown = (address: number, count: number) => new Float32Array(memory.buffer, address, count)
  randomValues('uniform', 2, seed, 'c', 0, grown(c, m * n))
  return { memory, stored, b, c, floats: grown, matmul: createMatmul(memory, 0) }
}
