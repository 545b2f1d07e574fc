import {
  createKernelMemory,
  createTrainingLoops,
  type KernelMemory,
  randomValues,
  referenceTrainingLoops,
  TRAINING_SCRATCH_BYTES,
  type TrainingLoops,
} from '@polygraft/kernels'
import { describe, expect, it } from 'vitest'

const PLACES = 6
const PLACE_BYTES = 4096
/** Address of operand `i`; room for 1024 elements. */
const at = (i: number) => TRAINING_SCRATCH_BYTES + i * PLACE_BYTES

/** Normal values everywhere, and in the last place indices of rows below `rows`. */
function fill(memory: KernelMemory, rows: number): void {
  const values = new Float32Array(memory.buffer, at(0), ((PLACES - 1) * PLACE_BYTES) / 4)
  randomValues('normal', 1, 7, 'x', 0, values)
  const indices = new Uint32Array(memory.buffer, at(PLACES - 1), PLACE_BYTES / 4)
  indices.forEach((_, i) => {
    indices[i] = (i * 7 + 3) % rows
  })
}

/** Every byte of the operands after `run` with one implementation, in hexadecimal digits. */
function bytesAfter(create: (memory: KernelMemory) => TrainingLoops, rows: number, run: Run): string {
  const memory = createKernelMemory(at(PLACES))
  fill(memory, rows)
  run(create(memory))
  return Buffer.from(memory.buffer, at(0), PLACES * PLACE_BYTES).toString('hex')
}

type Run = (loops: TrainingLoops) => void

const adam = { factor: 0.7, beta1: 0.9, beta2: 0.98, eps: 1e-8, rate: 0.01, weightDecay: 0.05, step: 3 }

const CASES: readonly (readonly [string, (width: number) => Run])[] = [
  ['norm', (width) => (loops) => loops.norm(at(0), at(1), at(2), at(3), 5, width, 1e-5)],
  [
    'normBackward',
    (width) => (loops) => loops.normBackward(at(0), at(1), at(2), at(3), at(4), 5, width, false),
  ],
  [
    'normBackward, added',
    (width) => (loops) => loops.normBackward(at(0), at(1), at(2), at(3), at(4), 5, width, true),
  ],
  ['clear', (width) => (loops) => loops.clear(at(0), 5 * width)],
  ['copy', (width) => (loops) => loops.copy(at(0), at(1), 5 * width)],
  ['silu', (width) => (loops) => loops.silu(at(0), at(1), at(2), 5 * width)],
  ['siluBackward', (width) => (loops) => loops.siluBackward(at(0), at(1), at(2), 5 * width)],
  ['weightedSoftmax', (width) => (loops) => loops.weightedSoftmax(at(0), 5, width, at(1), at(2))],
  ['gather', (width) => (loops) => loops.gather(at(0), at(5), at(1), 5, width)],
  ['combine', (width) => (loops) => loops.combine(at(0), at(5), at(1), at(2), 5, 3, width)],
  ['spread', (width) => (loops) => loops.spread(at(0), at(5), at(1), at(2), at(3), at(4), 5, width)],
  ['rotate', (width) => (loops) => loops.rotate(at(0), at(1), at(2), 3, 2, width * 2 + 4, width * 2, false)],
  ['rotate, back', (width) => (loops) => loops.rotate(at(0), at(1), at(2), 3, 2, width * 2, width * 2, true)],
]

describe('the loops of training in SIMD have the bits of the reference', () => {
  it.each(CASES)('%s', (_, run) => {
    for (const width of [4, 8, 12, 20, 6, 5])
      expect(bytesAfter((memory) => createTrainingLoops(memory, 0), 5, run(width))).toEqual(
        bytesAfter(referenceTrainingLoops, 5, run(width)),
      )
  })

  it.each([1, 2, 7, 16, 100])('the softmaxes of attention, window %i', (window) => {
    for (const rows of [1, 3, 4, 9, 16]) {
      const stride = Math.ceil(rows / 4) * 4
      const run: Run = (loops) => {
        loops.causalSoftmax(at(0), rows, stride, window, 0.3)
        loops.softmaxBackward(at(0), at(1), rows, stride, 0.3)
      }
      expect(bytesAfter((memory) => createTrainingLoops(memory, 0), 5, run)).toEqual(
        bytesAfter(referenceTrainingLoops, 5, run),
      )
    }
  })

  it.each([1, 4, 37, 400])('AdamW and the sum of squares of %i elements', (count) => {
    const sums = [(memory: KernelMemory) => createTrainingLoops(memory, 0), referenceTrainingLoops].map(
      (create) => {
        const memory = createKernelMemory(at(PLACES))
        fill(memory, 5)
        // Second moments are not negative.
        const second = new Float32Array(memory.buffer, at(3), count)
        second.forEach((value, i) => {
          second[i] = Math.abs(value)
        })
        const loops = create(memory)
        loops.adamW(at(0), at(1), at(2), at(3), count, adam)
        return [
          loops.squares(at(0), count),
          Buffer.from(memory.buffer, at(0), 4 * PLACE_BYTES).toString('hex'),
        ]
      },
    )
    expect(sums[0]).toEqual(sums[1])
  })
})

it('causal softmax is e^x over what a row sees, divided by the sum', () => {
  const memory = createKernelMemory(at(PLACES))
  const scores = new Float32Array(memory.buffer, at(0), 12)
  scores.set([0, 9, 9, 9, Math.log(3), 0, 9, 9, 9, Math.log(3), 0, 9])
  createTrainingLoops(memory, 0).causalSoftmax(at(0), 3, 4, 2, 1)
  const expected = [1, 0, 0, 0, 0.75, 0.25, 0, 0, 0, 0.75, 0.25, 0]
  for (const [i, value] of expected.entries()) expect(scores[i]).toBeCloseTo(value, 6)
})

it('the gradient of silu is its slope', () => {
  const memory = createKernelMemory(at(PLACES))
  const [gate, up, d] = [0, 1, 2].map((i) => new Float32Array(memory.buffer, at(i), 4))
  const x = [-2, -0.1, 0.5, 3]
  gate!.set(x)
  up!.fill(2)
  d!.fill(1)
  createTrainingLoops(memory, 0).siluBackward(at(0), at(1), at(2), 4)
  const silu = (value: number) => value / (1 + Math.exp(-value))
  for (const [i, value] of x.entries()) {
    expect(gate![i]).toBeCloseTo((2 * (silu(value + 1e-4) - silu(value - 1e-4))) / 2e-4, 5)
    expect(up![i]).toBeCloseTo(silu(value), 6)
  }
})
