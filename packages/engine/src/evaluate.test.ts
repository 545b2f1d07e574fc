import { createEvaluator, evaluate } from '@polygraft/engine'
import { type DType, type Expr, literal, ModelError, numel, read, scale } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { bf16, f32, floats, sourceOf } from '../test/memory.js'

const source = sourceOf('s', {
  a: f32([1, 2, 3, 4, 5, 6], [3, 2]),
  b: f32([0.5, 0.25, -1, 0, 2, 8], [3, 2]),
  c: f32([10, 20, 30, 40, 50, 60], [3, 2]),
  w: f32([2, -4]),
  nan: bf16([0x7f81, 0xffff, 0x8000, 0x0001]),
  f4: { dtype: 'F4', shape: [6], bytes: Uint8Array.of(0x12, 0x34, 0xf0) },
  i64: { dtype: 'I64', shape: [1], bytes: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8) },
  f64: { dtype: 'F64', shape: [2], bytes: new Uint8Array(Float64Array.of(1 + 2 ** -40, 1e300).buffer) },
})
const sources = new Map([['s', source]])
const [a, b, c, w] = ['a', 'b', 'c', 'w'].map((name) => read('s', name)) as [Expr, Expr, Expr, Expr]

async function valuesOf(expr: Expr, shape: readonly number[]): Promise<number[]> {
  return floats(await evaluate({ dtype: 'F32', shape, expr }, sources))
}

describe('evaluate', () => {
  const cases: [string, Expr, number[]][] = [
    ['add folds from the left', { op: 'add', args: [a, b, c] }, [11.5, 22.25, 32, 44, 57, 74]],
    ['sub', { op: 'sub', args: [a, b] }, [0.5, 1.75, 4, 4, 3, -2]],
    ['mul', { op: 'mul', args: [a, b] }, [0.5, 0.5, -3, 0, 10, 48]],
    ['scale', scale(-2, a), [-2, -4, -6, -8, -10, -12]],
    ['cast rounds', { op: 'cast', dtype: 'BF16', arg: scale(1.001, a) }, [1, 2, 3, 4, 5, 6]],
    ['graft', { op: 'graft', cpt: c, base: a, post: b, lambda: 2 }, [9, 16.5, 22, 32, 44, 64]],
    ['ratio is 1 near zero', { op: 'ratio', num: a, den: b, guard: 0.3 }, [2, 1, -3, 1, 2.5, 0.75]],
    [
      'rows gathers',
      {
        op: 'rows',
        arg: a,
        width: 2,
        runs: [
          [2, 1],
          [0, 2],
        ],
      },
      [5, 6, 1, 2, 3, 4],
    ],
    [
      'rows broadcasts',
      {
        op: 'rows',
        arg: w,
        width: 2,
        runs: [
          [0, 1],
          [0, 1],
          [0, 1],
        ],
      },
      [2, -4, 2, -4, 2, -4],
    ],
    ['columns', { op: 'columns', arg: a, width: 3, begin: 1, end: 3 }, [2, 3, 5, 6]],
    ['ranks of rows', { op: 'ranks', arg: b, width: 3 }, [1, 0, 2, 0, 1, 2]],
    ['ranks of all', { op: 'ranks', arg: a, width: 6 }, [0, 1, 2, 3, 4, 5]],
    ['spread repeats elements', { op: 'spread', arg: w, count: 2, each: 2, times: 1 }, [2, 2, -4, -4]],
    ['spread repeats all', { op: 'spread', arg: w, count: 2, each: 1, times: 2 }, [2, -4, 2, -4]],
    [
      'spread, both ways',
      { op: 'spread', arg: w, count: 2, each: 2, times: 2 },
      [2, 2, -4, -4, 2, 2, -4, -4],
    ],
    ['select', { op: 'select', mask: b, on: a, off: c }, [1, 2, 3, 40, 5, 6]],
    [
      'graft compares cpt with what is frozen',
      { op: 'graft', cpt: c, base: a, post: b, lambda: 1, frozen: { op: 'scale', by: 10, arg: a } },
      [0.5, 0.25, -1, 0, 2, 8],
    ],
    [
      'concat',
      { op: 'concat', args: [w, { op: 'rows', arg: b, width: 2, runs: [[1, 2]] }], sizes: [2, 4] },
      [2, -4, -1, 0, 2, 8],
    ],
    [
      'arithmetic over gathered operands',
      {
        op: 'mul',
        args: [
          a,
          {
            op: 'rows',
            arg: scale(2, w),
            width: 2,
            runs: [
              [0, 1],
              [0, 1],
              [0, 1],
            ],
          },
        ],
      },
      [4, -16, 12, -32, 20, -48],
    ],
    [
      'gathers over arithmetic',
      {
        op: 'rows',
        arg: {
          op: 'sub',
          args: [
            a,
            {
              op: 'rows',
              arg: b,
              width: 2,
              runs: [
                [2, 1],
                [1, 1],
                [0, 1],
              ],
            },
          ],
        },
        width: 2,
        runs: [
          [1, 1],
          [0, 1],
          [2, 1],
        ],
      },
      [4, 4, -1, -6, 4.5, 5.75],
    ],
    [
      'lowrank',
      { op: 'lowrank', up: a, down: b, rows: 3, rank: 2, width: 3 },
      // [1 2; 3 4; 5 6] x [0.5 0.25 -1; 0 2 8]
      [0.5, 4.25, 15, 1.5, 8.75, 29, 2.5, 13.25, 43],
    ],
    [
      'lowrank, transposed',
      { op: 'lowrank', up: w, down: a, rows: 2, rank: 1, width: 6, transposed: true },
      [2, -4, 4, -8, 6, -12, 8, -16, 10, -20, 12, -24],
    ],
    ['literal', { op: 'add', args: [literal(Float32Array.of(1, 2, 3, 4, 5, 6)), a] }, [2, 4, 6, 8, 10, 12]],
  ]
  it.each(cases)('%s', async (_, expr, expected) => {
    expect(await valuesOf(expr, [expected.length])).toEqual(expected)
  })

  it('copies every dtype bit for bit, NaN payloads and sub-byte types included', async () => {
    for (const [name, stored] of source.tensors) {
      const bytes = await evaluate(
        { dtype: stored.dtype, shape: stored.shape, expr: read('s', name) },
        sources,
      )
      const original = await source.shards.get(stored.file)!.slice(stored.begin, stored.end).arrayBuffer()
      expect(bytes, name).toEqual(new Uint8Array(original))
    }
  })

  it('computes in F64 where the output is F64', async () => {
    const expr: Expr = { op: 'scale', by: 3, arg: read('s', 'f64') }
    const bytes = await evaluate({ dtype: 'F64', shape: [2], expr }, sources)
    expect([...new Float64Array(bytes.buffer)]).toEqual([3 * (1 + 2 ** -40), 3e300])
  })

  it('evaluates a range', async () => {
    const bytes = await evaluate({ dtype: 'F32', shape: [3, 2], expr: scale(2, a) }, sources, {
      begin: 1,
      end: 4,
    })
    expect(floats(bytes)).toEqual([4, 6, 8])
  })

  it('lists all that cannot be evaluated', async () => {
    const broken: Expr = { op: 'add', args: [read('s', 'i64'), read('s', 'none'), read('t', 'a'), a] }
    const error = await evaluate({ dtype: 'I64', shape: [1], expr: broken }, sources).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(ModelError)
    const codes = (error as ModelError).problems.map((problem) => problem.code)
    expect(codes).toEqual([
      'missing-tensor',
      'missing-tensor',
      'shape-mismatch',
      'not-a-float',
      'not-a-float',
    ])
  })

  it('refuses rows past the end and declared sizes that lie', async () => {
    const past: Expr = { op: 'rows', arg: a, width: 2, runs: [[2, 2]] }
    await expect(valuesOf(past, [2, 2])).rejects.toThrow('rows-out-of-range')
    await expect(valuesOf({ op: 'concat', args: [a], sizes: [5] }, [5])).rejects.toThrow('shape-mismatch')
    const columns: Expr = { op: 'columns', arg: a, width: 2, begin: 1, end: 3 }
    await expect(valuesOf(columns, [3, 2])).rejects.toThrow('columns-out-of-range')
    const spread: Expr = { op: 'spread', arg: w, count: 3, each: 1, times: 2 }
    await expect(valuesOf(spread, [3, 2])).rejects.toThrow('shape-mismatch')
    await expect(valuesOf({ op: 'ranks', arg: a, width: 4 }, [3, 2])).rejects.toThrow('no whole rows')
    const lowrank: Expr = { op: 'lowrank', up: a, down: w, rows: 3, rank: 2, width: 2 }
    await expect(valuesOf(lowrank, [3, 2])).rejects.toThrow(/down.*has another size/)
  })
})

// Random expressions over [rows, width] tensors, with gathers at any depth.
const [rows, width] = [5, 3]
const wide = sourceOf(
  'm',
  Object.fromEntries(
    ['x', 'y', 'z'].map((name, i) => [
      name,
      bf16(
        Array.from({ length: rows * width }, (_, j) => (0x3f00 + 977 * (i + 1) * (j + 3)) & 0xffff),
        [rows, width],
      ),
    ]),
  ),
)
const exprs = fc.letrec<{ expr: Expr }>((tie) => ({
  expr: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    fc.constantFrom('x', 'y', 'z').map((name): Expr => read('m', name)),
    fc.record({
      op: fc.constant('random' as const),
      distribution: fc.constantFrom('normal' as const, 'uniform' as const),
      scale: fc.constant(0.5),
      seed: fc.nat(9),
      name: fc.constantFrom('p', 'q'),
    }),
    fc.record({
      op: fc.constant('mask' as const),
      density: fc.constantFrom(0.2, 0.7, 1),
      seed: fc.nat(9),
      name: fc.constantFrom('p', 'q'),
    }),
    fc.record({
      op: fc.constantFrom('add' as const, 'sub' as const, 'mul' as const, 'elect' as const),
      args: fc.array(tie('expr'), { minLength: 1, maxLength: 3 }),
    }),
    fc.record({
      op: fc.constant('graft' as const),
      cpt: tie('expr'),
      base: tie('expr'),
      post: tie('expr'),
      lambda: fc.constantFrom(1, 0.5),
    }),
    fc.record({
      op: fc.constant('graft' as const),
      cpt: tie('expr'),
      base: tie('expr'),
      post: tie('expr'),
      lambda: fc.constant(1),
      frozen: tie('expr'),
    }),
    fc.record({ op: fc.constant('select' as const), mask: tie('expr'), on: tie('expr'), off: tie('expr') }),
    fc.tuple(tie('expr'), fc.integer({ min: 1, max: width - 1 })).map(([arg, begin]): Expr => {
      const shifted = (from: number, to: number): Expr => ({
        op: 'columns',
        arg,
        width,
        begin: from,
        end: to,
      })
      // As many columns as before, or rows and columns would not add up: those from `begin` on, of every row, twice over.
      const [left, right] = [shifted(0, begin), shifted(begin, width)]
      return { op: 'concat', args: [right, left], sizes: [(width - begin) * rows, begin * rows] }
    }),
    fc.tuple(tie('expr'), fc.constantFrom(1, width), fc.nat(rows - 1)).map(([arg, each, row]): Expr => {
      const runs = each === 1 ? ([[row, 1]] as const) : ([[0, rows]] as const)
      const gathered: Expr = { op: 'rows', arg, width, runs }
      if (each === 1) return { op: 'spread', arg: gathered, count: width, each, times: rows }
      const column: Expr = { op: 'columns', arg: gathered, width, begin: 1, end: 2 }
      return { op: 'spread', arg: column, count: rows, each, times: 1 }
    }),
    fc.record({
      op: fc.constant('cast' as const),
      dtype: fc.constantFrom('F16' as const, 'BF16' as const),
      arg: tie('expr'),
    }),
    fc
      .tuple(tie('expr'), tie('expr'), fc.integer({ min: 1, max: 4 }), fc.boolean())
      .map(([up, down, rank, transposed]): Expr => {
        const [m, n] = transposed ? [width, rows] : [rows, width]
        const factor = (arg: Expr, count: number): Expr => {
          const all: Expr = { op: 'concat', args: [arg, arg], sizes: [rows * width, rows * width] }
          return { op: 'rows', arg: all, width: 1, runs: [[1, count]] }
        }
        return {
          op: 'lowrank',
          up: factor(up, m * rank),
          down: factor(down, rank * n),
          rows: m,
          rank,
          width: n,
          transposed,
        }
      }),
    fc.record({
      op: fc.constant('ratio' as const),
      num: tie('expr'),
      den: tie('expr'),
      guard: fc.constant(1e-3),
    }),
    fc.record({
      op: fc.constant('ranks' as const),
      arg: tie('expr'),
      width: fc.constantFrom(1, width, rows),
    }),
    fc
      .tuple(tie('expr'), fc.shuffledSubarray([0, 1, 2, 3, 4], { minLength: rows, maxLength: rows }))
      .map(([arg, order]): Expr => ({ op: 'rows', arg, width, runs: order.map((row) => [row, 1] as const) })),
    fc.tuple(tie('expr'), tie('expr'), fc.integer({ min: 1, max: rows - 1 })).map(
      ([top, bottom, cut]): Expr => ({
        op: 'concat',
        args: [
          { op: 'rows', arg: top, width, runs: [[0, cut]] },
          { op: 'rows', arg: bottom, width, runs: [[cut, rows - cut]] },
        ],
        sizes: [cut * width, (rows - cut) * width],
      }),
    ),
  ),
}))

describe('evaluator', () => {
  const total = rows * width
  function tiled(expr: Expr, dtype: DType, tile: number, kernels: 'simd' | 'reference'): Uint8Array {
    const evaluator = createEvaluator(new Map([['m', wide]]), tile, kernels)
    const out = new Uint8Array(total * 8)
    let used = 0
    for (let begin = 0; begin < total; begin += tile) {
      const count = Math.min(tile, total - begin)
      const size = (dtype === 'F32' ? 4 : dtype === 'F64' ? 8 : 2) * count
      for (const { begin: at, out: into } of evaluator.fill(
        expr,
        dtype,
        begin,
        count,
        out.subarray(used, used + size),
      ))
        into.set(bytesOf.subarray(at, at + into.length))
      used += size
    }
    return out.subarray(0, used)
  }
  let bytesOf = new Uint8Array()

  it('gives the same bytes for any tile size and either kind of kernels', async () => {
    bytesOf = new Uint8Array(await wide.shards.get('model.safetensors')!.arrayBuffer())
    fc.assert(
      fc.property(
        exprs.expr,
        fc.constantFrom<DType>('BF16', 'F16', 'F32', 'F64'),
        fc.integer({ min: 1, max: numel([rows, width]) }),
        (expr, dtype, tile) => {
          const whole = tiled(expr, dtype, total, 'reference')
          expect(tiled(expr, dtype, tile, 'reference')).toEqual(whole)
          expect(tiled(expr, dtype, tile, 'simd')).toEqual(whole)
        },
      ),
      { numRuns: 300 },
    )
  })
})
