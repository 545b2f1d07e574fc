import {
  ACTIVATIONS,
  createKernelMemory,
  createVectors,
  randomValues,
  referenceActivation,
  VECTOR_SCRATCH_BYTES,
} from '@polygraft/kernels'
import { describe, expect, it } from 'vitest'
import { exponentialF32 } from './_exponential.js'

const EDGES = [0, -0, 1e-40, -1e-40, 87, -87.4, 88.03, -103, 1e30, -1e30, 0.5, -0.5]
const X = VECTOR_SCRATCH_BYTES

/** Edges, then normal values of growing spread. */
function operands(count: number): Float32Array {
  const values = new Float32Array(count)
  randomValues('normal', 1, 7, 'x', 0, values)
  return values.map((value, i) => EDGES[i] ?? value * (1 + (i % 20)))
}

function place(values: Float32Array) {
  const memory = createKernelMemory(X + values.length * 8)
  const x = new Float32Array(memory.buffer, X, values.length)
  const y = new Float32Array(memory.buffer, X + values.length * 4, values.length).fill(3)
  x.set(values)
  return { x, y, vectors: createVectors(memory, 0) }
}

const EXACT: Readonly<Record<(typeof ACTIVATIONS)[number], (x: number) => number>> = {
  silu: (x) => x / (1 + Math.exp(-x)),
  gelu: (x) => (x / 2) * (1 + erf(x / Math.SQRT2)),
  gelu_tanh: (x) => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  relu: (x) => Math.max(x, 0),
}

/** By its series; beyond 5 it is 1. */
function erf(x: number): number {
  if (Math.abs(x) > 5) return Math.sign(x)
  let [term, sum] = [x, x]
  for (let n = 1; n < 120; n++) {
    term *= -(x * x) / n
    sum += term / (2 * n + 1)
  }
  return (2 / Math.sqrt(Math.PI)) * sum
}

describe('gated', () => {
  it.each(ACTIVATIONS)('%s times y has the bits of the reference', (activation) => {
    const values = operands(400)
    const { x, y, vectors } = place(values)
    vectors.gated(activation, X, X + 1600, 400)
    expect(x).toEqual(values.map((value) => Math.fround(referenceActivation(activation, value)) * y[0]!))
  })

  it.each(ACTIVATIONS)('%s is what its formula says', (activation) => {
    for (const x of operands(400)) {
      const exact = EXACT[activation](x)
      if (Math.abs(exact) > 1e30) continue
      expect(Math.abs(referenceActivation(activation, x) - exact)).toBeLessThan(1e-6 * (1 + Math.abs(x)))
    }
  })
})

it('e^x is within two units in the last place', () => {
  for (let x = -87; x < 88; x += 0.37) {
    const exact = Math.exp(Math.fround(x))
    expect(Math.abs(exponentialF32(Math.fround(x)) - exact) / exact).toBeLessThan(2.4e-7)
  }
})

describe('softmax', () => {
  it('is e^(scale x) divided by the sum', () => {
    const values = operands(64).map((value) => Math.max(-90, Math.min(90, value)))
    const { x, vectors } = place(values)
    vectors.softmax(X, 64, 0.25)
    const exact = [...values].map((value) => Math.exp(0.25 * value))
    const sum = exact.reduce((total, value) => total + value, 0)
    for (const [i, value] of exact.entries()) expect(x[i]).toBeCloseTo(value / sum, 6)
  })

  it('gives 0 where nothing is seen', () => {
    const { x, vectors } = place(Float32Array.of(Number.NEGATIVE_INFINITY, 1, 1, Number.NEGATIVE_INFINITY))
    vectors.softmax(X, 4, 1)
    expect([...x]).toEqual([0, 0.5, 0.5, 0])
  })
})

it('scale multiplies each element', () => {
  const values = operands(8)
  const { x, vectors } = place(values)
  vectors.scale(X, 8, 0.3)
  expect(x).toEqual(values.map((value) => Math.fround(value * Math.fround(0.3))))
})
