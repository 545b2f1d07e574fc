import { evaluate } from '@polygraft/engine'
import { decode } from '@polygraft/kernels'
import { byteSize, type Checkpoint, isFloat, ModelError, numel, type Tensor } from '@polygraft/tensor'
import type { TensorView } from './api.js'
import { heatOf, summarize } from './summarize.js'

/** Up to here a tensor is read whole; of a larger one, rows. Unit: bytes. */
const WHOLE_BYTES = 16 * 2 ** 20
const SAMPLED_ROWS = 64
const READ_ELEMENTS = 512 * 1024

/**
 * Histogram and heat map of a tensor, of evenly spaced rows where it is large.
 * @throws ModelError 'missing-tensor', 'not-a-float'; what reading throws.
 */
export async function viewTensor(checkpoint: Checkpoint, name: string): Promise<TensorView> {
  const tensor = checkpoint.tensors.get(name)
  if (!tensor)
    throw new ModelError({ code: 'missing-tensor', message: 'There is no such tensor', tensor: name })
  const { dtype } = tensor
  if (!isFloat(dtype))
    throw new ModelError({
      code: 'not-a-float',
      message: 'Only float tensors are drawn',
      tensor: name,
      expected: 'F64, F32, F16 or BF16',
      received: dtype,
    })
  const width = tensor.shape.at(-1) ?? 1
  const rows = width === 0 ? 0 : numel(tensor.shape) / width
  const picked = pickRows(tensor, rows)
  const values = new Float32Array(picked.length * width)
  // Neighbouring rows are read together.
  for (let i = 0; i < picked.length; ) {
    let end = i + 1
    while (end < picked.length && picked[end] === picked[end - 1]! + 1 && (end - i) * width < READ_ELEMENTS)
      end++
    const range = { begin: picked[i]! * width, end: (picked[end - 1]! + 1) * width }
    decode(dtype, await evaluate(tensor, checkpoint.sources, range), values.subarray(i * width, end * width))
    i = end
  }
  return { rowsRead: picked.length, rows, ...summarize(values), heat: heatOf(values, picked.length, width) }
}

function pickRows({ dtype, shape }: Tensor, rows: number): number[] {
  const isWhole = byteSize(dtype, numel(shape)) <= WHOLE_BYTES || rows <= SAMPLED_ROWS
  const count = isWhole ? rows : SAMPLED_ROWS
  return Array.from({ length: count }, (_, i) => Math.floor((i * rows) / count))
}
