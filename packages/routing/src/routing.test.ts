import { randomValues } from '@polygraft/kernels'
import {
  conditionNumber,
  gateTopK,
  gateTopKRenormalized,
  orthogonal,
  ROUTER_INITS,
  routerContrasts,
  routerExpr,
} from '@polygraft/routing'
import { literalValues, type ModelError } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

const logits = fc.array(fc.double({ min: -30, max: 30, noNaN: true }), { minLength: 1, maxLength: 12 })
const routed = logits.chain((values) =>
  fc.tuple(fc.constant(values), fc.integer({ min: 1, max: values.length })),
)
const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0)

describe('gates', () => {
  it('choose the k largest, lower index first among equals', () => {
    expect(gateTopK([0, 0, 0, 0], 2).experts).toEqual([0, 1])
    expect(gateTopKRenormalized([1, 3, 2, 3], 3).experts).toEqual([1, 3, 2])
    expect(gateTopKRenormalized([-Infinity, 0, -Infinity, 0], 2)).toEqual({
      experts: [1, 3],
      weights: [0.5, 0.5],
    })
  })

  it('gate A sums to 1, so that equal experts give the dense output', () => {
    fc.assert(
      fc.property(routed, ([values, k]) => {
        const { weights } = gateTopKRenormalized(values, k)
        expect(Math.abs(sum(weights) - 1)).toBeLessThan(1e-15 * k + 1e-15)
        if (k === 1) expect(weights).toEqual([1])
      }),
    )
  })

  it('gate A is gate B renormalised, and top-k before softmax', () => {
    fc.assert(
      fc.property(routed, ([values, k]) => {
        const a = gateTopKRenormalized(values, k)
        const b = gateTopK(values, k)
        expect(a.experts).toEqual(b.experts)
        const total = sum(b.weights)
        expect(total).toBeLessThanOrEqual(1 + 1e-15)
        a.weights.forEach((weight, i) => {
          expect(weight).toBeCloseTo(b.weights[i]! / total, 12)
        })
        const kept = a.experts.map((expert) => values[expert]!)
        expect(gateTopK(kept, k).weights).toEqual(a.weights)
      }),
    )
  })

  it('permute with the experts where no two logits are equal', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.double({ min: -30, max: 30, noNaN: true }), { minLength: 2 }),
        (values) => {
          const last = values.length - 1
          const { experts, weights } = gateTopKRenormalized(values, 2)
          const mirrored = gateTopKRenormalized([...values].reverse(), 2)
          expect(mirrored.experts).toEqual(experts.map((expert) => last - expert))
          expect(mirrored.weights).toEqual(weights)
        },
      ),
    )
  })

  it.each([
    ['k = 0', [1, 2], 0, 'bad-top-k'],
    ['k > E', [1, 2], 3, 'bad-top-k'],
    ['a fraction', [1, 2], 1.5, 'bad-top-k'],
    ['NaN', [1, Number.NaN], 1, 'bad-logits'],
    ['an overflow', [1, Infinity], 1, 'bad-logits'],
    ['too many masked', [1, -Infinity], 2, 'bad-logits'],
  ])('refuse %s', (_, values, k, code) => {
    for (const gate of [gateTopK, gateTopKRenormalized])
      expect(() => gate(values, k)).toThrow(
        expect.objectContaining({ name: 'ModelError', code }) as ModelError,
      )
  })
})

describe('orthogonal', () => {
  it.each([
    [1, 1],
    [1, 7],
    [4, 64],
    [8, 8],
    [9, 4],
  ])('%i x %i has orthonormal rows, or columns', (rows, cols) => {
    const matrix = orthogonal(rows, cols, 3, 'r')
    const count = Math.min(rows, cols)
    for (let p = 0; p < count; p++)
      for (let q = 0; q < count; q++) {
        const product =
          rows <= cols
            ? sum(Array.from({ length: cols }, (_, i) => matrix[p * cols + i]! * matrix[q * cols + i]!))
            : sum(Array.from({ length: rows }, (_, i) => matrix[i * cols + p]! * matrix[i * cols + q]!))
        expect(product).toBeCloseTo(p === q ? 1 : 0, 6)
      }
    expect(conditionNumber(matrix, rows, cols)).toBeCloseTo(1, 5)
  })

  it('depends on seed and name alone', () => {
    expect(orthogonal(3, 5, 1, 'a')).toEqual(orthogonal(3, 5, 1, 'a'))
    expect(orthogonal(3, 5, 1, 'a')).not.toEqual(orthogonal(3, 5, 2, 'a'))
    expect(orthogonal(3, 5, 1, 'a')).not.toEqual(orthogonal(3, 5, 1, 'b'))
  })
})

describe('routerExpr', () => {
  const options = { numExperts: 4, hiddenSize: 32, seed: 7, name: 'layer 0' }

  it.each([
    ['xavier', 'normal', Math.sqrt(2 / 36)],
    ['normal', 'normal', 0.02],
    ['uniform', 'uniform', Math.sqrt(6 / 36)],
  ] as const)('%s draws %s values', (init, distribution, scale) => {
    expect(routerExpr({ ...options, init })).toEqual({
      op: 'random',
      distribution,
      scale,
      seed: 7,
      name: 'layer 0',
    })
  })

  it('orthogonal is a literal of E x H values', () => {
    const expr = routerExpr({ ...options, init: 'orthogonal' })
    if (expr.op !== 'literal') throw new Error('not a literal')
    expect(literalValues(expr)).toEqual(orthogonal(4, 32, 7, 'layer 0'))
  })

  it('xavier and uniform have the variance they name', () => {
    for (const init of ['xavier', 'uniform'] as const) {
      const expr = routerExpr({ init, numExperts: 8, hiddenSize: 512, seed: 0, name: 'r' })
      if (expr.op !== 'random') throw new Error('not random')
      const values = new Float32Array(8 * 512)
      randomValues(expr.distribution, expr.scale, expr.seed, expr.name, 0, values)
      const variance = sum([...values].map((value) => value * value)) / values.length
      expect(variance / (2 / 520)).toBeGreaterThan(0.9)
      expect(variance / (2 / 520)).toBeLessThan(1.1)
    }
  })

  it('is plain data for every init', () => {
    for (const init of ROUTER_INITS) {
      const expr = routerExpr({ ...options, init })
      expect(JSON.parse(JSON.stringify(expr))).toEqual(expr)
    }
  })
})

describe('conditionNumber', () => {
  it('of a diagonal is the ratio of its entries', () => {
    expect(conditionNumber(Float32Array.of(3, 0, 0, 0, 0, -2, 0, 0, 0, 0, 6, 0), 3, 4)).toBeCloseTo(3, 12)
  })

  it('of [[1, 1], [0, 1]] is the square of the golden ratio', () => {
    expect(conditionNumber(Float32Array.of(1, 1, 0, 1), 2, 2)).toBeCloseTo(((1 + Math.sqrt(5)) / 2) ** 2, 12)
  })

  it('is unchanged by a transpose, and by a factor', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: 15, maxLength: 15 }),
        (values) => {
          const transposed = Array.from({ length: 15 }, (_, i) => values[(i % 3) * 5 + Math.floor(i / 3)]!)
          const condition = conditionNumber(values, 3, 5)
          fc.pre(condition < 1e4)
          expect(conditionNumber(transposed, 5, 3) / condition).toBeCloseTo(1, 6)
          expect(
            conditionNumber(
              values.map((value) => 4 * value),
              3,
              5,
            ) / condition,
          ).toBeCloseTo(1, 12)
        },
      ),
    )
  })

  it('recovers the singular values of a product of rotations and a diagonal', () => {
    const size = 6
    const left = orthogonal(size, size, 1, 'left')
    const right = orthogonal(size, 20, 1, 'right')
    const product = new Float64Array(size * 20)
    for (let i = 0; i < size; i++)
      for (let j = 0; j < 20; j++)
        for (let m = 0; m < size; m++)
          product[i * 20 + j]! += left[i * size + m]! * (m + 2) * right[m * 20 + j]!
    expect(conditionNumber(product, size, 20)).toBeCloseTo(7 / 2, 4)
  })

  it.each([
    ['equal rows', [1, 2, 1, 2], 2, Infinity],
    ['zeros', [0, 0, 0, 0], 2, Infinity],
    ['one expert', [3, 4], 1, 1],
    ['NaN', [Number.NaN, 1, 1, 0], 2, Number.NaN],
  ])('of %s', (_, values, experts, expected) => {
    expect(conditionNumber(values, experts, 2)).toBe(expected)
  })
})

describe('routerContrasts', () => {
  it('keep what the choice depends on: a shared row drops out, distances stay', () => {
    const rows = [1, 0, 0, 0, 1, 0, 0, 0, 1]
    const contrasts = routerContrasts(rows, 3, 3)
    const moved = routerContrasts(
      rows.map((value, i) => value + [5, -7, 11][i % 3]!),
      3,
      3,
    )
    for (const [i, value] of moved.entries()) expect(value).toBeCloseTo(contrasts[i]!, 12)
    expect(conditionNumber(contrasts, 2, 3)).toBeCloseTo(1, 12)
  })

  it('tell that two of three experts are alike, and that rows which sum to zero are not', () => {
    expect(conditionNumber(routerContrasts([1, 0, 1, 0, 0, 1], 3, 2), 2, 2)).toBe(Infinity)
    const triangle = [1, 0, -0.5, Math.sqrt(3) / 2, -0.5, -Math.sqrt(3) / 2]
    expect(conditionNumber(routerContrasts(triangle, 3, 2), 2, 2)).toBeCloseTo(1, 12)
  })
})
