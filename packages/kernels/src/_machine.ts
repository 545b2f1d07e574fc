import type { KernelMemory } from './_wasm-run.js'
import { createMatmul, MATMUL_SCRATCH_BYTES, type Matmul } from './matmul.js'
import { createTrainingLoops, TRAINING_SCRATCH_BYTES } from './training.js'
import type { TrainingLoops } from './training-loops.js'
import { createVectors, VECTOR_SCRATCH_BYTES, type Vectors } from './vectors.js'

/** What one thread computes with: loops, and views of the memory that follow its growth. */
export interface Machine {
  readonly matmul: Matmul
  readonly vectors: Vectors
  readonly training: TrainingLoops
  floats(): Float32Array
  words(): Uint32Array
  bytes(): Uint8Array
}

/** Working space of one thread. Unit: bytes. */
export const SCRATCH_BYTES = MATMUL_SCRATCH_BYTES + VECTOR_SCRATCH_BYTES + TRAINING_SCRATCH_BYTES

/** @param scratch Address of SCRATCH_BYTES, a multiple of 16. */
export function createMachine(memory: KernelMemory, scratch: number): Machine {
  const viewsOf = (buffer: KernelMemory['buffer']) => ({
    buffer,
    floats: new Float32Array(buffer),
    words: new Uint32Array(buffer),
    bytes: new Uint8Array(buffer),
  })
  let views = viewsOf(memory.buffer)
  const current = () => {
    if (views.buffer !== memory.buffer) views = viewsOf(memory.buffer)
    return views
  }
  return {
    matmul: createMatmul(memory, scratch),
    vectors: createVectors(memory, scratch + MATMUL_SCRATCH_BYTES),
    training: createTrainingLoops(memory, scratch + MATMUL_SCRATCH_BYTES + VECTOR_SCRATCH_BYTES),
    floats: () => current().floats,
    words: () => current().words,
    bytes: () => current().bytes,
  }
}
