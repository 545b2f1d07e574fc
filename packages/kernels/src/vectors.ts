import {
  type ActivationName,
  generateExponentials,
  generateGated,
  generateLargest,
  generateScale,
} from './_vector-codegen.js'
import { instantiateOver, type KernelMemory } from './_wasm-run.js'

/** Working space of one thread. Unit: bytes. */
export const VECTOR_SCRATCH_BYTES = 64

/** Loops over F32 elements of one memory, four at a time: addresses are multiples of 4, counts multiples of 4. */
export interface Vectors {
  /** x = activation(x) * y. */
  gated(activation: ActivationName, x: number, y: number, count: number): void
  /** x = factor * x. */
  scale(x: number, count: number, factor: number): void
  /**
   * x = softmax(scale * x): e^(scale x - max) divided by their sum. The sum goes lane by lane (element i to lane i mod 4), then
   * (0 + 1) + (2 + 3). -Infinity gives 0.
   */
  softmax(x: number, count: number, scale: number): void
}

/** @param scratch Address of VECTOR_SCRATCH_BYTES, a multiple of 16. */
export function createVectors(memory: KernelMemory, scratch: number): Vectors {
  const largest = instantiateOver('largest', generateLargest, memory)
  const exponentials = instantiateOver('exponentials', generateExponentials, memory)
  const times = instantiateOver('scale', generateScale, memory)
  const activations = new Map<ActivationName, (...args: number[]) => void>()
  const scalars = scratch + 16
  let floats = new Float32Array(memory.buffer)
  const refresh = () => {
    if (floats.buffer !== memory.buffer) floats = new Float32Array(memory.buffer)
  }

  function activate(activation: ActivationName): (...args: number[]) => void {
    const run =
      activations.get(activation) ??
      instantiateOver(`gated ${activation}`, (limits) => generateGated(activation, limits), memory)
    activations.set(activation, run)
    return run
  }

  function scale(x: number, count: number, factor: number): void {
    floats[scalars / 4] = factor
    if (count > 0) times(x, count / 4, scalars)
  }

  return {
    gated(activation, x, y, count) {
      if (count > 0) activate(activation)(x, y, count / 4)
    },
    scale(x, count, factor) {
      refresh()
      scale(x, count, factor)
    },
    softmax(x, count, factor) {
      refresh()
      const result = scratch / 4
      largest(x, count / 4, scratch)
      const most = Math.max(...floats.subarray(result, result + 4))
      floats[scalars / 4] = factor
      floats[scalars / 4 + 1] = Math.fround(factor) * most
      exponentials(x, count / 4, scratch, scalars)
      const [a, b, c, d] = floats.subarray(result, result + 4)
      const sum = Math.fround(Math.fround(a! + b!) + Math.fround(c! + d!))
      scale(x, count, 1 / sum)
    },
  }
}
