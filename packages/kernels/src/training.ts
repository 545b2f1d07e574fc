import {
  generateAdamW,
  generateClear,
  generateCombine,
  generateCopyOver,
  generateGather,
  generateRotate,
  generateSpread,
  generateSquares,
} from './_indexed-codegen.js'
import {
  generateCausalSoftmax,
  generateNorm,
  generateNormBackward,
  generateSilu,
  generateSiluBackward,
  generateSoftmaxBackward,
  generateWeightedSoftmax,
} from './_rows-codegen.js'
import type { Code } from './_wasm.js'
import { instantiateOver, type KernelMemory } from './_wasm-run.js'
import { adamWNumbers, type TrainingLoops } from './training-loops.js'
import { referenceTrainingLoops } from './training-reference.js'

/** Working space of one thread. Unit: bytes. */
export const TRAINING_SCRATCH_BYTES = 64

/**
 * The loops in SIMD; where a width is no multiple of 4 those in plain TypeScript, which give the same bits.
 * @param scratch Address of TRAINING_SCRATCH_BYTES, a multiple of 16.
 */
export function createTrainingLoops(memory: KernelMemory, scratch: number): TrainingLoops {
  const plain = referenceTrainingLoops(memory)
  const made = new Map<string, (...args: number[]) => void>()
  let floats = new Float32Array(memory.buffer)
  let doubles = new Float64Array(memory.buffer)

  function kernel(key: string, code: (limits: Code) => Uint8Array<ArrayBuffer>) {
    const run = made.get(key) ?? instantiateOver(`training ${key}`, code, memory)
    made.set(key, run)
    return run
  }

  /** The scratch's address, with numbers in it. */
  function scalars(...values: number[]): number {
    refresh()
    floats.set(values, scratch / 4)
    return scratch
  }

  function refresh(): void {
    if (floats.buffer === memory.buffer) return
    floats = new Float32Array(memory.buffer)
    doubles = new Float64Array(memory.buffer)
  }

  return {
    clear(x, count) {
      const whole = count - (count % 4)
      if (whole > 0) kernel('clear', generateClear)(x, whole / 4)
      plain.clear(x + whole * 4, count - whole)
    },
    copy(x, out, count) {
      const whole = count - (count % 4)
      if (whole > 0) kernel('copy', generateCopyOver)(x, out, whole / 4)
      plain.copy(x + whole * 4, out + whole * 4, count - whole)
    },
    norm(x, weight, y, scales, rows, width, eps) {
      if (width % 4) return plain.norm(x, weight, y, scales, rows, width, eps)
      if (rows === 0) return
      kernel('norm', generateNorm)(x, weight, y, scales, rows, width / 4, scalars(eps, width))
    },
    normBackward(x, weight, scales, dy, dx, rows, width, adds) {
      if (width % 4) return plain.normBackward(x, weight, scales, dy, dx, rows, width, adds)
      if (rows === 0) return
      const run = kernel(`norm backward ${adds}`, (limits) => generateNormBackward(adds, limits))
      run(x, weight, scales, dy, dx, rows, width / 4, scalars(width))
    },
    silu(gate, up, hidden, count) {
      const whole = count - (count % 4)
      if (whole > 0) kernel('silu', generateSilu)(gate, up, hidden, whole / 4)
      plain.silu(gate + whole * 4, up + whole * 4, hidden + whole * 4, count - whole)
    },
    siluBackward(gate, up, dHidden, count) {
      const whole = count - (count % 4)
      if (whole > 0) kernel('silu backward', generateSiluBackward)(gate, up, dHidden, whole / 4)
      plain.siluBackward(gate + whole * 4, up + whole * 4, dHidden + whole * 4, count - whole)
    },
    causalSoftmax(scores, rows, stride, window, scale) {
      if (rows === 0) return
      kernel('causal softmax', generateCausalSoftmax)(scores, rows, stride * 4, window, scalars(scale))
    },
    softmaxBackward(p, dp, rows, stride, scale) {
      if (rows === 0) return
      kernel('softmax backward', generateSoftmaxBackward)(p, dp, rows, stride * 4, scalars(scale))
    },
    weightedSoftmax(x, rows, width, weights, stats) {
      if (width % 4) return plain.weightedSoftmax(x, rows, width, weights, stats)
      if (rows > 0) kernel('weighted softmax', generateWeightedSoftmax)(x, rows, width / 4, weights, stats)
    },
    rotate(x, cos, sin, rows, heads, headDim, rotated, isBack) {
      if (rotated % 8) return plain.rotate(x, cos, sin, rows, heads, headDim, rotated, isBack)
      if (rows === 0) return
      const run = kernel(`rotate ${isBack}`, (limits) => generateRotate(isBack, limits))
      run(x, cos, sin, rows, heads, headDim * 4, rotated * 2, rotated / 8)
    },
    gather(x, indices, out, count, width) {
      if (width % 4) return plain.gather(x, indices, out, count, width)
      if (count > 0) kernel('gather', generateGather)(x, indices, out, count, width / 4, width * 4)
    },
    combine(y, places, weights, out, rows, topK, width) {
      if (width % 4) return plain.combine(y, places, weights, out, rows, topK, width)
      if (rows === 0) return
      kernel('combine', generateCombine)(y, places, weights, out, rows, topK, width / 4, width * 4)
    },
    spread(d, sources, y, weights, dy, dots, count, width) {
      if (width % 4) return plain.spread(d, sources, y, weights, dy, dots, count, width)
      if (count === 0) return
      kernel('spread', generateSpread)(d, sources, y, weights, dy, dots, count, width / 4, width * 4)
    },
    adamW(value, gradient, first, second, count, numbers) {
      const whole = count - (count % 4)
      if (whole > 0)
        kernel(
          'adamw',
          generateAdamW,
        )(...[value, gradient, first, second, whole / 4, scalars(...adamWNumbers(numbers))])
      const [a, b, c, d] = [value, gradient, first, second].map((address) => address + whole * 4)
      plain.adamW(a!, b!, c!, d!, count - whole, numbers)
    },
    squares(x, count) {
      const whole = count - (count % 4)
      refresh()
      doubles.fill(0, scratch / 8, scratch / 8 + 4)
      if (whole > 0) kernel('squares', generateSquares)(x, whole / 4, scratch)
      for (let i = whole; i < count; i++) doubles[scratch / 8 + (i % 4)]! += floats[x / 4 + i]! ** 2
      const [a, b, c, d] = doubles.subarray(scratch / 8, scratch / 8 + 4)
      return a! + b! + (c! + d!)
    },
  }
}
