import { accuracyOf, retentionOf } from '@polygraft/evaluate'
import { expect, it } from 'vitest'

it('accuracyOf: mean and standard error', () => {
  expect(accuracyOf([1, 0, 1, 1])).toEqual({ accuracy: 0.75, stderr: 0.25, n: 4 })
  expect(accuracyOf([1])).toEqual({ accuracy: 1, stderr: 0, n: 1 })
  expect(accuracyOf([])).toEqual({ accuracy: Number.NaN, stderr: Number.NaN, n: 0 })
})

it('retentionOf: ratio, with both errors', () => {
  const model = { accuracy: 0.4, stderr: 0.03, n: 100 }
  const reference = { accuracy: 0.8, stderr: 0.04, n: 100 }
  const { retention, stderr } = retentionOf(model, reference)
  expect(retention).toBe(0.5)
  expect(stderr).toBeCloseTo(Math.hypot(0.03 / 0.8, (0.5 * 0.04) / 0.8))
  expect(retentionOf(model, { accuracy: 0, stderr: 0, n: 1 }).retention).toBeNaN()
})
