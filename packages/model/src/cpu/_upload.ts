import {
  decode,
  type KernelMemory,
  PANEL_DTYPES,
  type PanelDType,
  packedBytes,
  packPanels,
} from '@polygraft/kernels'
import { byteSize, ModelError } from '@polygraft/tensor'
import type { Weight, WeightSource } from '../backend.js'
import type { Heap } from './_heap.js'

/** A matrix packed as it is stored, or a vector as F32, at `address`. */
export interface CpuWeight extends Weight {
  readonly address: number
  /** Index in PANEL_DTYPES of a matrix's elements. */
  readonly kind: number
}

/** What is read of a weight at once. Unit: bytes. */
const CHUNK_BYTES = 4 * 2 ** 20

export async function uploadWeight(
  memory: KernelMemory,
  heap: Heap,
  source: WeightSource,
): Promise<CpuWeight> {
  const { shape, dtype } = source
  if (shape.length === 1) return { shape, dtype, kind: 0, address: await uploadVector(memory, heap, source) }
  const kind = PANEL_DTYPES.indexOf(dtype as PanelDType)
  if (kind < 0 || shape.length !== 2)
    throw new ModelError({
      code: 'bad-weight',
      message: 'The device takes vectors, and matrices of F32, BF16 or F16',
      received: `${dtype} [${shape.join(', ')}]`,
    })
  return { shape, dtype, kind, address: await uploadMatrix(memory, heap, source, PANEL_DTYPES[kind]!) }
}

async function uploadVector(
  memory: KernelMemory,
  heap: Heap,
  { dtype, shape, read }: WeightSource,
): Promise<number> {
  const count = shape[0]!
  const address = heap.allocate(count * 4)
  const bytes = await read(0, count)
  decode(dtype, bytes, new Float32Array(memory.buffer, address, count))
  return address
}

async function uploadMatrix(
  memory: KernelMemory,
  heap: Heap,
  { shape, read }: WeightSource,
  dtype: PanelDType,
): Promise<number> {
  const [n, k] = shape as [number, number]
  const size = packedBytes(dtype, n, k)
  const address = heap.allocate(size)
  const rows = Math.max(8, Math.floor(CHUNK_BYTES / byteSize(dtype, k) / 8) * 8)
  for (let begin = 0; begin < n; begin += rows) {
    const bytes = await read(begin * k, Math.min(n, begin + rows) * k)
    packPanels(dtype, bytes, begin, k, new Uint8Array(memory.buffer, address, size))
  }
  return address
}
