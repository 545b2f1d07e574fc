import { adamW, cosineRate } from '@polygraft/train'
import { expect, it } from 'vitest'

it('AdamW gives what torch.optim.AdamW of PyTorch 2.13 gives in F64 (lr 0.1, betas 0.9 and 0.98, decay 0.05)', () => {
  const value = Float64Array.of(0.5, -1, 2)
  const state = {
    first: new Map([['w', new Float64Array(3)]]),
    second: new Map([['w', new Float64Array(3)]]),
  }
  const steps = [
    [0.1, -0.2, 0.3],
    [-0.4, 0.5, 0],
    [1, 1, -1],
  ]
  steps.forEach((gradient, i) => {
    const gradients = new Map([['w', Float64Array.from(gradient)]])
    const options = { beta1: 0.9, beta2: 0.98, eps: 1e-8, weightDecay: 0.05 }
    adamW(new Map([['w', value]]), gradients, state, i + 1, 0.1, options)
  })
  const expected = [0.40672931390649497, -1.001859967355611, 1.850108394426667]
  expected.forEach((each, i) => {
    expect(value[i]).toBeCloseTo(each, 13)
  })
})

it('warms up, and ends at the floor', () => {
  const shape = { steps: 100, peak: 2, warmup: 4, floor: 0.1 }
  expect(cosineRate(0, shape)).toBe(0.5)
  expect(cosineRate(99, shape)).toBeCloseTo(0.2, 12)
})
