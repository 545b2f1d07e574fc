import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { heatOf, summarize } from './summarize.js'

describe('summarize', () => {
  it('counts every finite value once, and the others apart', () => {
    fc.assert(
      fc.property(fc.float32Array({ maxLength: 200 }), (values) => {
        const { histogram, nonFinite, count } = summarize(values)
        expect(histogram.reduce((sum, bin) => sum + bin, 0) + nonFinite).toBe(count)
      }),
    )
  })

  it('has the figures of the finite values', () => {
    const { min, max, mean, std, nonFinite } = summarize(Float32Array.of(1, 2, 3, 4, Number.NaN))
    expect([min, max, mean, nonFinite]).toEqual([1, 4, 2.5, 1])
    expect(std).toBeCloseTo(Math.sqrt(1.25))
  })

  it('says nothing of no values', () => {
    expect(summarize(new Float32Array(0))).toMatchObject({ count: 0, min: 0, max: 0, mean: 0, std: 0 })
  })
})

describe('heatOf', () => {
  it('is the magnitude of each value where they are few', () => {
    const heat = heatOf(Float32Array.of(1, -2, 3, -4, 5, -6), 2, 3)
    expect(heat).toEqual({ rows: 2, columns: 3, values: Float32Array.of(1, 2, 3, 4, 5, 6) })
  })

  it('is the root mean square of cells where they are many', () => {
    const { rows, columns, values } = heatOf(new Float32Array(960 * 960).fill(-3), 960, 960)
    expect([rows, columns]).toEqual([96, 96])
    expect(values.every((value) => value === 3)).toBe(true)
  })
})
