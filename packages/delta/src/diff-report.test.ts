import { diffReport, type PairMoments } from '@polygraft/delta'
import { describe, expect, it } from 'vitest'

/** Moments of two vectors, by definition. */
function momentsOf(a: readonly number[], b: readonly number[]): PairMoments {
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)
  const delta = a.map((x, i) => b[i]! - x)
  return {
    count: a.length,
    sumA2: sum(a.map((x) => x * x)),
    sumB2: sum(b.map((x) => x * x)),
    dot: sum(a.map((x, i) => x * b[i]!)),
    sumDelta2: sum(delta.map((x) => x * x)),
    changed: delta.filter((x) => x !== 0).length,
    maxAbsDelta: Math.max(...delta.map(Math.abs)),
    nonFinite: 0,
  }
}

describe('diffReport', () => {
  const rows = [
    { name: 'small', group: 'norm', layer: 0, moments: momentsOf([3, 4], [3, 5]) },
    { name: 'large', group: 'ffn', layer: 0, moments: momentsOf([3, 4], [-3, -4]) },
    { name: 'same', group: 'ffn', layer: 1, moments: momentsOf([1, 0], [1, 0]) },
  ]

  it('sorts by relative norm, and gives what each tensor changed by', () => {
    const { tensors } = diffReport(rows)
    expect(tensors.map(({ name }) => name)).toEqual(['large', 'small', 'same'])
    expect(tensors[0]).toEqual({
      name: 'large',
      group: 'ffn',
      layer: 0,
      count: 2,
      norm: 10,
      relativeNorm: 2,
      cosine: -1,
      changedShare: 1,
      maxAbs: 8,
      nonFinite: 0,
    })
    expect(tensors[1]).toMatchObject({ norm: 1, relativeNorm: 0.2, changedShare: 0.5, maxAbs: 1 })
    expect(tensors[2]).toMatchObject({ norm: 0, relativeNorm: 0, cosine: 1, changedShare: 0 })
  })

  it('totals are those of the tensors laid end to end', () => {
    const whole = diffReport([
      { name: 'x', group: 'x', moments: momentsOf([3, 4, 3, 4, 1, 0], [3, 5, -3, -4, 1, 0]) },
    ])
    const { groups, total } = diffReport(rows)
    expect({ ...total, name: 'x', group: 'x' }).toEqual(whole.tensors[0])
    expect(Object.keys(groups)).toEqual(['ffn', 'norm'])
    expect(groups.ffn).toMatchObject({ count: 4, norm: 10, maxAbs: 8 })
  })

  it('says so where a ratio has no meaning', () => {
    const { tensors, total } = diffReport([{ name: 'new', group: 'ffn', moments: momentsOf([0], [2]) }])
    expect(tensors[0]).toMatchObject({ relativeNorm: Number.POSITIVE_INFINITY, cosine: Number.NaN })
    expect(JSON.parse(JSON.stringify(total))).toMatchObject({ relativeNorm: null, cosine: null })
    expect(diffReport([]).total).toMatchObject({ count: 0, norm: 0, relativeNorm: 0, changedShare: 0 })
  })
})
