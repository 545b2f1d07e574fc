import { createEvaluator, evaluate, planCheckpoint } from '@polygraft/engine'
import { randomValues, referenceProduct } from '@polygraft/kernels'
import { type Expr, literal, read } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'
import { checkpointOf, f32, floats, sourceOf } from '../test/memory.js'

/** Sizes beyond what a block holds in each direction. */
const SHAPES = [
  { rows: 700, rank: 300, width: 9 },
  { rows: 1, rank: 260, width: 5000 },
  { rows: 2, rank: 1, width: 300_000 },
  { rows: 70_000, rank: 2, width: 1 },
]

describe.each(SHAPES)('lowrank of %o', ({ rows, rank, width }) => {
  const [up, down] = [new Float32Array(rows * rank), new Float32Array(rank * width)]
  randomValues('normal', 1, 1, 'up', 0, up)
  randomValues('normal', 1, 1, 'down', 0, down)
  const source = sourceOf('s', { up: f32(up), down: f32(down) })
  const expr: Expr = { op: 'lowrank', up: read('s', 'up'), down: read('s', 'down'), rows, rank, width }
  const expected = new Float32Array(rows * width)
  referenceProduct(
    [rows, width, rank],
    (o, k) => up[o * rank + k]!,
    (i, k) => down[k * width + i]!,
    expected,
  )
  const bytesOf = (change: object, kernels: 'simd' | 'reference') =>
    evaluate(
      { dtype: 'F32', shape: [rows, width], expr: { ...expr, ...change } as Expr },
      new Map([['s', source]]),
      {
        kernels,
      },
    )

  it('is the product in blocks of any size, by either kernels, and from literals', async () => {
    const simd = new Float32Array((await bytesOf({}, 'simd')).buffer)
    expect(simd).toEqual(expected)
    expect(new Float32Array((await bytesOf({}, 'reference')).buffer)).toEqual(expected)
    const literals = { up: literal(up), down: literal(down) }
    expect(new Float32Array((await bytesOf(literals, 'simd')).buffer)).toEqual(expected)
  })

  it('transposes', async () => {
    const transposed = floats(await bytesOf({ transposed: true }, 'simd'))
    const wrong = transposed.findIndex((x, i) => x !== expected[(i % rows) * width + Math.floor(i / rows)])
    expect(wrong).toBe(-1)
  })

  it('says what it reads and holds', () => {
    const plain = checkpointOf(source)
    const planned = (value: Expr) =>
      planCheckpoint({
        ...plain,
        tensors: new Map([['w', { dtype: 'F32', shape: [rows, width], expr: value }]]),
      })
    const { bytesRead, peakBytes } = planned(expr)
    expect(bytesRead).toBe(4 * (rows + width) * rank)
    const zeros: Expr = { op: 'random', distribution: 'normal', scale: 0, seed: 0, name: '' }
    expect(peakBytes).toBeGreaterThan(planned(zeros).peakBytes + 5e6)
    const held = planned({ ...expr, up: literal(up), down: literal(down) } as Expr)
    expect(held.peakBytes).toBeGreaterThanOrEqual(peakBytes + 4 * (rows + width) * rank)
  })
})

it('products of products share no buffers', async () => {
  const values = Float32Array.from({ length: 4 }, (_, i) => i + 1)
  const square = (arg: Expr): Expr => ({ op: 'lowrank', up: arg, down: arg, rows: 2, rank: 2, width: 2 })
  const expr = square(square(literal(values)))
  const evaluator = createEvaluator(new Map(), 4)
  const out = new Uint8Array(16)
  expect([...evaluator.fill(expr, 'F32', 0, 4, out)]).toEqual([])
  // [1 2; 3 4] to the fourth.
  expect(floats(out)).toEqual([199, 290, 435, 634])
})
