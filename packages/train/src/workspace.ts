import {
  createKernelMemory,
  createMatmul,
  growKernelMemory,
  type KernelMemory,
  MATMUL_SCRATCH_BYTES,
} from '@polygraft/kernels'
import { ModelError } from '@polygraft/tensor'
import { type Floats, type Matmul, plainMatmul } from './matmul.js'
import type { Tensors } from './parameters.js'

/** The memory that training computes in, and its products. What is released is used again. */
export interface Workspace {
  /** Operands lie in this workspace. */
  readonly matmul: Matmul
  /** Zeros. The view stays valid while the memory grows. */
  allocate(length: number): Floats
  /** How far the memory is used; `release` of it frees all that was allocated since. */
  mark(): number
  release(mark: number): void
  /** Unit: bytes. */
  readonly peakBytes: number
}

const ALIGNMENT = 16
const GROWTH_BYTES = 16 * 2 ** 20

/**
 * A workspace in F32 with SIMD products (`createMatmul` of `@polygraft/kernels`), up to 4 GiB. A product's bits depend on its operands
 * alone.
 * @throws ModelError "out-of-memory" once the 4 GiB are spent.
 */
export function createWorkspace(): Workspace {
  // Shared, since only shared memory grows without taking its views away.
  const memory = createKernelMemory(GROWTH_BYTES, true)
  const products = createMatmul(memory, 0)
  let used = Math.ceil(MATMUL_SCRATCH_BYTES / ALIGNMENT) * ALIGNMENT
  let peakBytes = used
  const matmul =
    (form: 'NT' | 'NN' | 'TN') =>
    (...[m, n, k, a, b, c, adds]: Parameters<Matmul['nt']>) => {
      if (m * n * k === 0) return
      products.multiply({ form, m, n, k, a: a.byteOffset, b: b.byteOffset, c: c.byteOffset, adds })
    }
  return {
    matmul: { nt: matmul('NT'), nn: matmul('NN'), tn: matmul('TN') },
    allocate(length) {
      const begin = used
      const end = begin + Math.ceil((length * 4) / ALIGNMENT) * ALIGNMENT
      if (end > memory.buffer.byteLength) grow(memory, end)
      used = end
      peakBytes = Math.max(peakBytes, end)
      return new Float32Array(memory.buffer, begin, length).fill(0)
    },
    mark: () => used,
    release(mark) {
      used = mark
    },
    get peakBytes() {
      return peakBytes
    },
  }
}

/** Ordinary arrays and plain products in the precision of `values`. */
export function plainWorkspace(values: Tensors): Workspace {
  const isDouble = [...values.values()].some((value) => value instanceof Float64Array)
  return {
    matmul: plainMatmul,
    allocate: (length) => (isDouble ? new Float64Array(length) : new Float32Array(length)),
    mark: () => 0,
    release() {},
    peakBytes: 0,
  }
}

function grow(memory: KernelMemory, bytes: number): void {
  const wanted = Math.ceil(bytes / GROWTH_BYTES) * GROWTH_BYTES
  if (growKernelMemory(memory, wanted)) return
  throw new ModelError({
    code: 'out-of-memory',
    message: 'Weights, gradients and activations do not fit',
    expected: 'at most 4 GiB together',
    received: `${(bytes / 2 ** 30).toFixed(2)} GiB`,
    next: 'Train fewer tokens at once (batch, sequence length) and accumulate, or train with PyTorch (polygraft export-cpt).',
  })
}
