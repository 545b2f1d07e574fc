import { decode } from '@polygraft/kernels'
import { byteSize, ModelError } from '@polygraft/tensor'
import type { Gpu, GpuBuffer } from '../gpu.js'
import { DTYPE_CODES } from './_weights.js'
import type { GpuWeight, GpuWeightSource, WeightPiece } from './shapes.js'

/** Elements read at a time: even, as two of 16 bits share a word. */
const CHUNK = 2 ** 22

/** Takes a weight onto the device, split by rows where it exceeds what the device binds. */
export async function uploadWeight(gpu: Gpu, source: GpuWeightSource): Promise<GpuWeight> {
  const { shape } = source
  if (DTYPE_CODES[source.dtype] === undefined || shape.length < 1 || shape.length > 2)
    throw new ModelError({
      code: 'bad-weight',
      message: 'The GPU takes matrices and vectors of F32, F16 and BF16',
      received: `${source.dtype} [${shape.join(', ')}]`,
    })
  if (shape.length === 1) return uploadVector(gpu, source)
  const [rows, columns] = [shape[0]!, shape[1]!]
  const most = Math.max(1, Math.floor(gpu.maxBindingBytes / Math.max(1, byteSize(source.dtype, columns))))
  const pieces: WeightPiece[] = []
  try {
    for (let begin = 0; begin < rows; begin += most) {
      const end = Math.min(rows, begin + most)
      const buffer = gpu.createBuffer(byteSize(source.dtype, (end - begin) * columns))
      pieces.push({ buffer, begin, end, from: 0 })
      await fill(gpu, source, buffer, begin * columns, end * columns)
    }
    if (pieces.length > 0) await gpu.read(pieces.at(-1)!.buffer, 0, 4) // tells whether there was memory
  } catch (error) {
    for (const { buffer } of pieces) buffer.destroy()
    throw error
  }
  return { shape, dtype: source.dtype, pieces }
}

async function fill(gpu: Gpu, source: GpuWeightSource, buffer: GpuBuffer, begin: number, end: number) {
  for (let at = begin; at < end; at += CHUNK) {
    const bytes = await source.read(at, Math.min(end, at + CHUNK))
    gpu.write(buffer, new Uint8Array(bytes), byteSize(source.dtype, at - begin))
  }
}

/** As F32: norms and biases are small, and are read as they are. */
async function uploadVector(gpu: Gpu, source: GpuWeightSource): Promise<GpuWeight> {
  const { dtype, shape } = source
  const values = new Float32Array(shape[0]!)
  decode(dtype, await source.read(0, values.length), values)
  const buffer = gpu.createBuffer(values.byteLength)
  gpu.write(buffer, values)
  return { shape, dtype: 'F32', pieces: [{ buffer, begin: 0, end: values.length, from: 0 }] }
}
