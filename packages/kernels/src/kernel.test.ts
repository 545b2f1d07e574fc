import {
  buildKernel,
  decode,
  encode,
  type KernelExpr,
  kernelKey,
  referenceKernel,
  scalarKernel,
  simdKernel,
  type TileKernel,
} from '@polygraft/kernels'
import { byteSize, type FloatDType } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'

const input = (index: number): KernelExpr => ({ op: 'input', index })
const graft = (lambda: number, cpt = 0, base = 1, post = 2): KernelExpr => ({
  op: 'graft',
  cpt: input(cpt),
  base: input(base),
  post: input(post),
  lambda,
})

/** Fills the inputs of `tile`, runs it and decodes its outputs. */
function evaluate(
  tile: TileKernel,
  inputs: readonly FloatDType[],
  outputs: readonly FloatDType[],
  values: readonly (readonly number[])[],
  scalars: readonly number[],
  ends: readonly number[] = [],
) {
  const count = values[0]!.length
  for (const [i, dtype] of inputs.entries())
    encode(dtype, Float64Array.from(values[i]!), tile.inputs[i]!.subarray(0, byteSize(dtype, count)))
  const counts = tile.run(count, scalars, ends)
  const results = outputs.map((dtype, i) => {
    const out = new Float64Array(count)
    decode(dtype, tile.outputs[i]!.subarray(0, byteSize(dtype, count)), out)
    return [...out]
  })
  return { counts, results }
}

describe('buildKernel', () => {
  it('computes what experts share once', () => {
    const outputs = Array.from({ length: 8 }, (_, e) => ({
      expr: graft(1, 2 + e, 0, 1),
      dtype: 'BF16' as const,
    }))
    const kernel = buildKernel(Array<FloatDType>(10).fill('BF16'), outputs)
    const count = (op: string) => kernel.nodes.filter((node) => node.op === op).length
    expect([count('input'), count('sub'), count('equal'), count('graft')]).toEqual([10, 1, 1, 8])
    expect(kernel.scalars).toEqual([])
  })

  it('keys by structure, not by the values of scalars, but for a lambda of 1', () => {
    const of = (lambda: number) => buildKernel(['F32', 'F32', 'F32'], [{ expr: graft(lambda), dtype: 'F32' }])
    expect(kernelKey(of(0.5))).toBe(kernelKey(of(0.25)))
    expect(of(0.5).scalars).toEqual([0.5])
    expect(kernelKey(of(1))).not.toBe(kernelKey(of(0.5)))
    expect(of(1).scalars).toEqual([])
    const other = buildKernel(['F32', 'F32', 'BF16'], [{ expr: graft(1), dtype: 'F32' }])
    expect(kernelKey(other)).not.toBe(kernelKey(of(1)))
  })

  it('tells zeros of different sign apart', () => {
    const args = [0, -0].map((by): KernelExpr => ({ op: 'scale', by, arg: input(0) }))
    const kernel = buildKernel(['F32'], [{ expr: { op: 'add', args }, dtype: 'F32' }])
    expect(kernel.scalars).toEqual([0, -0])
  })

  it('refuses inputs that are not there and operations without operands', () => {
    expect(() => buildKernel(['F32'], [{ expr: input(1), dtype: 'F32' }])).toThrow(/0 to 0/)
    expect(() => buildKernel([], [{ expr: { op: 'add', args: [] }, dtype: 'F32' }])).toThrow(/no operands/)
  })
})

describe.each([
  ['reference', referenceKernel],
  ['SIMD', simdKernel],
  ['scalar', scalarKernel],
] as const)('%s kernel', (_, create) => {
  const f32 = Math.fround

  it('adds, subtracts and multiplies from left to right, each step rounded to F32', () => {
    const values = [[1e8], [1], [-1e8]]
    for (const [op, expected] of [
      ['add', 0],
      ['sub', 2e8],
      ['mul', f32(f32(1e8 * 1) * -1e8)],
    ] as const) {
      const kernel = buildKernel(
        ['F32', 'F32', 'F32'],
        [{ expr: { op, args: [input(0), input(1), input(2)] }, dtype: 'F32' }],
      )
      const { results } = evaluate(create(kernel, 1)!, kernel.inputs, ['F32'], values, [])
      expect(results).toEqual([[expected]])
    }
  })

  it('rounds scalars to F32', () => {
    const kernel = buildKernel(['F32'], [{ expr: { op: 'scale', by: 0.1, arg: input(0) }, dtype: 'F32' }])
    const { results } = evaluate(create(kernel, 2)!, ['F32'], ['F32'], [[3, -0]], kernel.scalars)
    expect(results).toEqual([[f32(f32(0.1) * 3), -0]])
  })

  it('divides, and gives 1 where the denominator is within the guard', () => {
    const kernel = buildKernel(
      ['F32', 'F32'],
      [{ expr: { op: 'ratio', num: input(0), den: input(1), guard: 0.5 }, dtype: 'F32' }],
    )
    const values = [
      [1, 1, 1, 1, 1, Number.NaN, Number.NaN],
      [3, 0.5, -0.5, 0, Number.NaN, 0.1, 2],
    ]
    const { results } = evaluate(create(kernel, 7)!, ['F32', 'F32'], ['F32'], values, kernel.scalars)
    expect(results).toEqual([[f32(1 / 3), 1, 1, 1, Number.NaN, 1, Number.NaN]])
  })

  it('keeps what is above the threshold, at it before the end, or NaN', () => {
    const expr: KernelExpr = { op: 'keep', arg: input(0), threshold: 0.5, tieEnd: 1003 }
    const kernel = buildKernel(['F32'], [{ expr, dtype: 'F32' }])
    const values = [[0.5, 1, -0.5, 0.5, -0.5, Number.NaN, -1, -0, Number.NEGATIVE_INFINITY, 0.4999]]
    const ends = kernel.ends.map((end) => end - 1000) // the tile begins with element 1000
    const { results } = evaluate(create(kernel, 10)!, ['F32'], ['F32'], values, kernel.scalars, ends)
    expect(results).toEqual([[0.5, 1, -0.5, 0, 0, Number.NaN, -1, 0, Number.NEGATIVE_INFINITY, 0]])
    expect(() => create(kernel, 10)!.run(1, kernel.scalars)).toThrow(/Ends are missing/)
  })

  it('clamps to a distance, passing on exactly what is within it', () => {
    const expr: KernelExpr = { op: 'clamp', arg: input(0), to: input(1), by: 0.5 }
    const kernel = buildKernel(['F32', 'F32'], [{ expr, dtype: 'F32' }])
    const [inf, nan] = [Number.POSITIVE_INFINITY, Number.NaN]
    const values = [
      [1.1, 3, -3, -0, nan, 1, inf],
      [1, 1, 1, 0, 1, nan, 1],
    ]
    const { results } = evaluate(create(kernel, 7)!, kernel.inputs, ['F32'], values, kernel.scalars)
    expect(results).toEqual([[Math.fround(1.1), 1.5, 0.5, -0, nan, nan, 1.5]])
  })

  it('elects by number, all that are not 0, by a sum of something else; weighs, or only adds', () => {
    const values = [
      [1, 1, 0, 2],
      [2, -4, 3, -2],
      [4, 1, 0, 0],
    ]
    const args = values.map((_, i) => input(i))
    const exprs: KernelExpr[] = [
      { op: 'elect', args, by: 'count' },
      { op: 'elect', args, by: 'any' },
      { op: 'elect', args, weights: [1, 2, 1] },
      { op: 'elect', args, weights: [] },
      { op: 'elect', args, zero: 'positive' },
      { op: 'elect', args, sum: { op: 'scale', by: -1, arg: input(0) } },
    ]
    const outputs = exprs.map((each) => ({ expr: each, dtype: 'F32' as const }))
    const kernel = buildKernel(['F32', 'F32', 'F32'], outputs)
    const dtypes = outputs.map(({ dtype }) => dtype)
    const { results } = evaluate(create(kernel, 4)!, kernel.inputs, dtypes, values, kernel.scalars)
    const f32 = Math.fround
    expect(results).toEqual([
      [f32(7 / 3), 1, 3, 0],
      [f32(7 / 3), f32(-2 / 3), 3, 0],
      [1.75, -2, 1.5, 0],
      [7, -4, 3, 0],
      [f32(7 / 3), -4, 3, 2],
      [0, -4, 0, -2],
    ])
  })

  it('selects by a mask, to the bit', () => {
    const expr: KernelExpr = { op: 'select', mask: input(0), on: input(1), off: input(2) }
    const kernel = buildKernel(['BF16', 'F32', 'F32'], [{ expr, dtype: 'F32' }])
    const values = [
      [1, 0, -0, Number.NaN, 0.25],
      [-0, 1, 1, 7, Number.POSITIVE_INFINITY],
      [1, -0, Number.NaN, 1, Number.NaN],
    ]
    const { results } = evaluate(create(kernel, 5)!, kernel.inputs, ['F32'], values, [])
    expect(results).toEqual([[-0, -0, Number.NaN, 7, Number.POSITIVE_INFINITY]])
  })

  it('a graft compares cpt with what is frozen, where that is not base', () => {
    const expr: KernelExpr = {
      op: 'graft',
      cpt: input(0),
      base: input(1),
      post: input(2),
      lambda: 1,
      frozen: input(3),
    }
    const kernel = buildKernel(Array<FloatDType>(4).fill('F32'), [{ expr, dtype: 'F32' }])
    //              frozen, not, post is base, both
    const values = [
      [2, 3, 2, 2],
      [1, 1, 5, 5],
      [9, 9, 5, 5],
      [2, 2, 1, 2],
    ]
    const { results, counts } = evaluate(create(kernel, 4)!, kernel.inputs, ['F32'], values, kernel.scalars)
    expect(results).toEqual([[9, 11, 2, 2]])
    expect(counts).toMatchObject({ changed: 2, swallowed: 0 })
  })

  it('elects a sign by the sum, and takes the mean of those that have it', () => {
    //         all agree, outvoted, outweighed, tie, zeros, only zeros, NaN, infinity, -infinity wins, both
    const [inf, nan] = [Number.POSITIVE_INFINITY, Number.NaN]
    const values = [
      [1, -4, -9, 2, 0, -0, nan, inf, 1, inf],
      [2, 3, 1, -2, 5, 0, 1, 1, -inf, -inf],
      [6, 2, 2, 0, -0, -0, 1, -9, 2, 1],
    ]
    const args = [input(0), input(1), input(2)]
    const kernel = buildKernel(['F32', 'F32', 'F32'], [{ expr: { op: 'elect', args }, dtype: 'F32' }])
    const { results } = evaluate(create(kernel, 10)!, kernel.inputs, ['F32'], values, [])
    expect(results).toEqual([[3, 2.5, -9, 0, 5, 0, nan, inf, -inf, nan]])
  })

  it('casts by rounding to the dtype and back', () => {
    const x = 1 + 2 ** -8 + 2 ** -11
    const cast = (dtype: FloatDType): KernelExpr => ({ op: 'cast', dtype, arg: input(0) })
    const dtypes = ['BF16', 'F16', 'F32', 'F64'] as const
    const kernel = buildKernel(
      ['F32'],
      dtypes.map((dtype) => ({ expr: cast(dtype), dtype: 'F32' as const })),
    )
    const { results } = evaluate(
      create(kernel, 1)!,
      ['F32'],
      dtypes.map(() => 'F32'),
      [[x]],
      [],
    )
    expect(results).toEqual([[1 + 2 ** -7], [1 + 2 ** -8], [x], [x]])
  })

  it('grafts as defined: unchanged elements pass cpt on, and at lambda 1 untouched ones become post', () => {
    //           same  same zeros  same inf            untouched   moved  swallowed  NaN
    const cpt = [5, -0, -0, Number.POSITIVE_INFINITY, 0.1, 3, 1, Number.NaN, 1, 7]
    const base = [0.3, 0, -0, Number.POSITIVE_INFINITY, 0.1, 1, 1e-6, 1, Number.NaN, Number.NEGATIVE_INFINITY]
    const post = [0.3, -0, 0, Number.POSITIVE_INFINITY, 0.7, 2, 2e-6, 2, Number.NaN, Number.NEGATIVE_INFINITY]
    const kernel = buildKernel(['F32', 'F32', 'F32'], [{ expr: graft(1), dtype: 'BF16' }])
    const { results, counts } = evaluate(create(kernel, 10)!, kernel.inputs, ['BF16'], [cpt, base, post], [])
    const [b01, b07] = [0.10009765625, 0.69921875]
    expect(results).toEqual([[5, -0, -0, Number.POSITIVE_INFINITY, b07, 4, 1, Number.NaN, Number.NaN, 7]])
    expect(b01).toBeGreaterThan(0.1)
    const nonFinite = { fromInputs: 3, made: 0 }
    expect(counts).toEqual({ changed: 5, swallowed: 2, outputs: [{ changed: 5, swallowed: 2, nonFinite }] })
    const byHalf = buildKernel(['F32', 'F32', 'F32'], [{ expr: graft(0.5), dtype: 'BF16' }])
    const half = evaluate(create(byHalf, 10)!, kernel.inputs, ['BF16'], [cpt, base, post], byHalf.scalars)
    expect(half.results[0]!.slice(4, 6)).toEqual([0.400390625, 3.5])
  })

  it('follows the plain formula on ordinary numbers, multiplying and adding apart', () => {
    const draw = (k: number) =>
      Array.from({ length: 500 }, (_, i) => f32(Math.sin(i * 12.9898 + k * 78.233) * (k + 1)))
    const values = [draw(0), draw(1), draw(2)]
    const kernel = buildKernel(['F32', 'F32', 'F32'], [{ expr: graft(0.7), dtype: 'F32' }])
    const { results } = evaluate(create(kernel, 500)!, kernel.inputs, ['F32'], values, [0.7])
    const lambda = f32(0.7)
    const expected = values[0]!.map((c, i) => f32(c + f32(lambda * f32(values[2]![i]! - values[1]![i]!))))
    expect(results).toEqual([expected])
  })

  it('counts what is not finite, by whether an input was not', () => {
    const exprs: KernelExpr[] = [
      { op: 'add', args: [input(0), input(1)] },
      { op: 'sub', args: [input(0), input(0)] },
      { op: 'scale', by: 2, arg: input(1) },
    ]
    const dtypes = ['F16', 'F32', 'BF16'] as const
    const kernel = buildKernel(
      ['F32', 'BF16'],
      exprs.map((expr, i) => ({ expr, dtype: dtypes[i]! })),
    )
    for (const count of [5, 37, 20_000]) {
      const x = Array.from({ length: count }, (_, i) => (i === 1 || i === count - 1 ? Number.NaN : 40_000))
      const y = Array.from({ length: count }, (_, i) => (i === 2 || i === count - 2 ? 40_000 : 1))
      const { counts } = evaluate(create(kernel, count)!, kernel.inputs, dtypes, [x, y], kernel.scalars)
      expect(counts.outputs).toEqual([
        { changed: 0, swallowed: 0, nonFinite: { fromInputs: 2, made: 2 } },
        { changed: 0, swallowed: 0, nonFinite: { fromInputs: 2, made: 0 } },
        { changed: 0, swallowed: 0 },
      ])
    }
  })

  it('counts each output for itself, and only grafts', () => {
    const kernel = buildKernel(
      ['F32', 'F32', 'F32'],
      [
        { expr: graft(1), dtype: 'F32' },
        { expr: graft(1), dtype: 'BF16' },
        { expr: { op: 'scale', by: 2, arg: graft(1) }, dtype: 'F32' },
      ],
    )
    const values = [
      [1, 1, 1],
      [0, 0, 0],
      [1e-3, 0, 1],
    ]
    const { counts } = evaluate(
      create(kernel, 3)!,
      kernel.inputs,
      ['F32', 'BF16', 'F32'],
      values,
      kernel.scalars,
    )
    expect(counts).toEqual({
      changed: 4,
      swallowed: 1,
      outputs: [
        { changed: 2, swallowed: 0 },
        { changed: 2, swallowed: 1 },
        { changed: 0, swallowed: 0 },
      ],
    })
  })

  it('refuses more elements than the tile holds, and missing scalars', () => {
    const kernel = buildKernel(['F32', 'F32', 'F32'], [{ expr: graft(0.5), dtype: 'F32' }])
    const tile = create(kernel, 4)!
    expect(() => tile.run(5, [1])).toThrow(/0 to 4/)
    expect(() => tile.run(4, [])).toThrow(/Scalars are missing/)
    expect(tile.run(0, [1])).toEqual({ changed: 0, swallowed: 0, outputs: [{ changed: 0, swallowed: 0 }] })
  })
})

describe.each([
  ['reference', referenceKernel],
  ['scalar', scalarKernel],
] as const)('F64, %s kernel', (_, create) => {
  it('is computed in F64, scalars unrounded', () => {
    const kernel = buildKernel(['F64', 'BF16', 'F64'], [{ expr: graft(0.1), dtype: 'F64' }])
    expect(simdKernel(kernel, 1)).toBeUndefined()
    const tile = create(kernel, 1)!
    const { results } = evaluate(tile, kernel.inputs, ['F64'], [[1 / 3], [0.5], [1 / 7]], [0.1])
    expect(results).toEqual([[1 / 3 + 0.1 * (1 / 7 - 0.5)]])
  })

  it('inputs are rounded to F32 first where the output is not F64; both may stand side by side', () => {
    const sum: KernelExpr = { op: 'sub', args: [input(0), input(1)] }
    const kernel = buildKernel(
      ['F64', 'F64'],
      [
        { expr: sum, dtype: 'F64' },
        { expr: sum, dtype: 'F32' },
        { expr: { op: 'cast', dtype: 'F32', arg: input(0) }, dtype: 'F64' },
      ],
    )
    const values = [[1 + 2 ** -30], [1]]
    const { results } = evaluate(create(kernel, 1)!, kernel.inputs, ['F64', 'F32', 'F64'], values, [])
    expect(results).toEqual([[2 ** -30], [0], [1]])
  })
})
