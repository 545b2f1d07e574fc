import { byteSize } from '@polygraft/tensor'
import type { PanelDType } from './_matmul-codegen.js'
import { operation, shareOf } from './_operation.js'
import { ACTIVATIONS } from './_vector-codegen.js'
import { decode, type FloatArray } from './float-formats.js'
import { packedColumns } from './matmul.js'
import { packedBytes, unpackRow } from './panels.js'

/*
 * The decoder's operations, all but attention and the mixture. Operands are addresses (bytes), sizes, and numbers; activations are F32
 * rows without gaps. Rows or columns are shared out among the parts.
 */

/** How a matrix may be stored; an instruction gives the index. */
export const PANEL_DTYPES: readonly PanelDType[] = ['F32', 'BF16', 'F16']

/** out [rows, columns] = scale * table[tokens], table packed [size, columns]. */
export const embed = operation(
  ['table', 'dtype', 'size', 'tokens', 'out', 'rows', 'columns', 'scale'],
  (machine, { table, dtype: kind, size, tokens, out, rows, columns, scale }, part, parts) => {
    const dtype = PANEL_DTYPES[kind]!
    const packed = machine.bytes().subarray(table, table + packedBytes(dtype, size, columns))
    const stored = new Uint8Array(byteSize(dtype, columns))
    const [begin, end] = shareOf(rows, part, parts)
    for (let row = begin; row < end; row++) {
      const at = out / 4 + row * columns
      const values = machine.floats().subarray(at, at + columns)
      unpackRow(dtype, packed, machine.words()[tokens / 4 + row]!, columns, stored)
      decode(dtype, stored, values as FloatArray)
      if (scale !== 1) for (let i = 0; i < columns; i++) values[i]! *= scale
    }
  },
)

/** out = x / sqrt(mean(x^2) + eps) * weight, row by row; weight F32 [columns]. The mean in F64. */
export const norm = operation(
  ['x', 'weight', 'out', 'rows', 'columns', 'eps'],
  (machine, { x, weight, out, rows, columns, eps }, part, parts) => {
    const floats = machine.floats()
    const [begin, end] = shareOf(rows, part, parts)
    for (let row = begin; row < end; row++)
      normalize(floats, x / 4 + row * columns, weight / 4, out / 4 + row * columns, columns, eps)
  },
)

/** Indices count F32 elements. */
export function normalize(
  floats: Float32Array,
  from: number,
  weight: number,
  to: number,
  columns: number,
  eps: number,
): void {
  let [s0, s1, s2, s3] = [0, 0, 0, 0]
  const whole = columns - (columns % 4)
  for (let i = 0; i < whole; i += 4) {
    const [a, b, c, d] = [
      floats[from + i]!,
      floats[from + i + 1]!,
      floats[from + i + 2]!,
      floats[from + i + 3]!,
    ]
    s0 += a * a
    s1 += b * b
    s2 += c * c
    s3 += d * d
  }
  for (let i = whole; i < columns; i++) s0 += floats[from + i]! ** 2
  const factor = 1 / Math.sqrt((s0 + s1 + (s2 + s3)) / columns + eps)
  for (let i = 0; i < columns; i++)
    floats[to + i] = Math.fround(floats[from + i]! * factor) * floats[weight + i]!
}

/** out [rows, n] = or += x [rows, k] b^T + bias, b packed [n, k]; bias F32 [n], or 0 for none. */
export const linear = operation(
  ['x', 'weight', 'dtype', 'bias', 'out', 'rows', 'n', 'k', 'adds'],
  (machine, { x, weight, dtype: kind, bias, out, rows, n, k, adds }, part, parts) => {
    const dtype = PANEL_DTYPES[kind]!
    const product = { m: rows, n, k, a: x, b: weight, dtype, c: out, adds: adds !== 0 }
    machine.matmul.multiplyPacked(product, part, parts)
    if (bias === 0) return
    const floats = machine.floats()
    const [begin, end] = packedColumns(rows, n, part, parts)
    for (let row = 0; row < rows; row++)
      for (let i = begin; i < end; i++) floats[out / 4 + row * n + i]! += floats[bias / 4 + i]!
  },
)

/** out = out + factor * x. */
export const addScaled = operation(
  ['x', 'out', 'count', 'factor'],
  (machine, { x, out, count, factor }, part, parts) => {
    const floats = machine.floats()
    const [begin, end] = shareOf(count, part, parts)
    for (let i = begin; i < end; i++) floats[out / 4 + i]! += factor * floats[x / 4 + i]!
  },
)

/** x = factor * x. */
export const scale = operation(['x', 'count', 'factor'], (machine, { x, count, factor }, part, parts) => {
  const floats = machine.floats()
  const [begin, end] = shareOf(count, part, parts)
  for (let i = begin; i < end; i++) floats[x / 4 + i]! *= factor
})

/** x = activation(x) * y; both have room up to a multiple of 4. */
export const gated = operation(
  ['activation', 'x', 'y', 'count'],
  (machine, { activation, x, y, count }, part, parts) => {
    const [begin, end] = shareOf(Math.ceil(count / 4), part, parts)
    machine.vectors.gated(ACTIVATIONS[activation]!, x + begin * 16, y + begin * 16, (end - begin) * 4)
  },
)

/** out [count, columns] = rows of x; their indices as words. */
export const gather = operation(
  ['x', 'indices', 'out', 'count', 'columns'],
  (machine, { x, indices, out, count, columns }, part, parts) => {
    const floats = machine.floats()
    const words = machine.words()
    const [begin, end] = shareOf(count, part, parts)
    for (let i = begin; i < end; i++) {
      const from = x / 4 + words[indices / 4 + i]! * columns
      floats.copyWithin(out / 4 + i * columns, from, from + columns)
    }
  },
)

/** out [rows, columns] += factor * sigmoid(logits) * y: a shared expert behind its gate; logits [rows]. */
export const addGated = operation(
  ['logits', 'y', 'out', 'rows', 'columns', 'factor'],
  (machine, { logits, y, out, rows, columns, factor }, part, parts) => {
    const floats = machine.floats()
    const [begin, end] = shareOf(columns, part, parts)
    for (let row = 0; row < rows; row++) {
      const share = factor / (1 + Math.exp(-floats[logits / 4 + row]!))
      for (let i = begin; i < end; i++)
        floats[out / 4 + row * columns + i]! += share * floats[y / 4 + row * columns + i]!
    }
  },
)
