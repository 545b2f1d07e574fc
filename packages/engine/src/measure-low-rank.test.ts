import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type LowRank, type MeasureOptions, measureLowRank, measureRowNorms } from '@polygraft/engine'
import { randomValues, svd } from '@polygraft/kernels'
import { read, type Source, type Tensor } from '@polygraft/tensor'
import { fileSource } from '@polygraft/tensor-io/node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Bytes, f32, sourceOf } from '../test/memory.js'

/** A matrix of decaying values: sum_k 2^-k/2 x_k y_k^T and a little noise. */
function decaying(m: number, n: number, rank: number, noise: number): Float32Array {
  const [x, y] = [new Float32Array(m * rank), new Float32Array(rank * n)]
  const values = new Float32Array(m * n)
  randomValues('normal', 1, 1, 'x', 0, x)
  randomValues('normal', 1, 1, 'y', 0, y)
  randomValues('normal', noise, 1, 'noise', 0, values)
  for (let i = 0; i < m; i++)
    for (let k = 0; k < rank; k++) {
      const factor = x[i * rank + k]! * 2 ** (-k / 2)
      for (let j = 0; j < n; j++) values[i * n + j]! += factor * y[k * n + j]!
    }
  return values
}

const matrices: Record<string, Bytes> = {
  small: f32(decaying(20, 31, 5, 0.01), [20, 31]),
  tall: f32(decaying(700, 30, 5, 0.01), [700, 30]),
  large: f32(decaying(420, 260, 12, 0.002), [420, 260]),
  wide: f32(decaying(260, 600, 12, 0.002), [260, 600]),
  noise: f32(decaying(300, 260, 1, 1), [300, 260]),
  zeros: f32(new Float32Array(300 * 300), [300, 300]),
  few: f32([0, 0, 0, 0], [2, 2]),
  bad: f32([1, Number.NaN, Number.POSITIVE_INFINITY, 1], [2, 2]),
  vector: f32([1, 2, 3]),
}
const source = sourceOf('s', matrices)
const inMemory = new Map([['s', source]])
const stored = (name: string): Tensor => ({ ...source.tensors.get(name)!, expr: read('s', name) })
const valuesOf = (name: string) => new Float32Array(matrices[name]!.bytes.buffer)

let dir: string
let onDisk: Map<string, Source>
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'polygraft-low-rank-'))
  const path = join(dir, 'model.safetensors')
  await writeFile(path, new Uint8Array(await source.shards.get('model.safetensors')!.arrayBuffer()))
  onDisk = new Map([['s', { ...source, shards: new Map([['model.safetensors', fileSource(path)]]) }]])
})
afterAll(() => rm(dir, { recursive: true }))

async function cut(name: string, rank: number, energy?: number): Promise<LowRank> {
  const target = { tensor: stored(name), rank, ...(energy === undefined ? {} : { energy }) }
  return (await measureLowRank(new Map([[name, target]]), inMemory)).get(name)!
}

const known = new Map<string, Float64Array>()

/** All singular values, in F64. */
function valuesExactly(name: string): Float64Array {
  const found = known.get(name) ?? singularValues(name)
  known.set(name, found)
  return found
}

function singularValues(name: string): Float64Array {
  const [m, n] = matrices[name]!.shape as [number, number]
  const values = valuesOf(name)
  return svd(
    Array.from({ length: n }, (_, j) => Float64Array.from({ length: m }, (__, i) => values[i * n + j]!)),
  ).values
}

/** ||D - up down||^2 and ||D||^2. */
function errorOf(name: string, { rank, up, down }: LowRank): [error: number, squares: number] {
  const [m, n] = matrices[name]!.shape as [number, number]
  const values = valuesOf(name)
  let error = 0
  let squares = 0
  for (let i = 0; i < m; i++)
    for (let j = 0; j < n; j++) {
      let product = 0
      for (let k = 0; k < rank; k++) product += up[i * rank + k]! * down[k * n + j]!
      error += (values[i * n + j]! - product) ** 2
      squares += values[i * n + j]! ** 2
    }
  return [error, squares]
}

describe('measureLowRank', () => {
  it.each(['small', 'tall', 'large', 'wide'])(
    'finds the largest singular values of %s, and what they keep',
    async (name) => {
      const result = await cut(name, 6)
      const [m, n] = matrices[name]!.shape as [number, number]
      const expected = valuesExactly(name)
      expect(result.exact).toBe(Math.min(m, n) <= 256)
      expect([result.rank, result.up.length, result.down.length]).toEqual([6, 6 * m, 6 * n])
      // In F64 to its digits; a sketch's products are F32.
      const places = result.exact ? 12 : 5
      for (const [k, value] of result.values.entries()) expect(value / expected[k]!).toBeCloseTo(1, places)
      const [error, squares] = errorOf(name, result)
      expect(result.squares / squares).toBeCloseTo(1, 12)
      expect(result.energy).toBeCloseTo(1 - error / squares, 6)
      const best = expected.subarray(0, 6).reduce((sum, x) => sum + x * x, 0) / squares
      expect(result.energy).toBeGreaterThan(best - 1e-6)
    },
  )

  it('comes close to the best where values hardly decay', async () => {
    const result = await cut('noise', 40)
    const expected = valuesExactly('noise')
    const sum = (values: Float64Array) => values.reduce((all, x) => all + x * x, 0)
    const share = sum(result.values) / sum(expected.subarray(0, 40))
    expect(share).toBeGreaterThan(0.97)
    expect(share).toBeLessThan(1 + 1e-6)
    const [error, squares] = errorOf('noise', result)
    expect(result.energy).toBeCloseTo(1 - error / squares, 5)
  })

  it('takes the least rank that keeps a share, up to a limit', async () => {
    for (const name of ['small', 'large']) {
      const result = await cut(name, 40, 0.9)
      const squares = valuesExactly(name).map((x) => x * x)
      const total = squares.reduce((a, b) => a + b)
      const kept = (rank: number) => squares.subarray(0, rank).reduce((a, b) => a + b, 0) / total
      expect(kept(result.rank)).toBeGreaterThanOrEqual(0.9 - 1e-6)
      expect(kept(result.rank - 1)).toBeLessThan(0.9)
      expect((await cut(name, 2, 0.999)).rank).toBe(2)
    }
    expect((await cut('small', 100, 1)).rank).toBe(20)
  })

  it('of zeros keeps all with nothing', async () => {
    for (const name of ['zeros', 'few']) {
      expect(await cut(name, 3, 0.5)).toMatchObject({ rank: 0, energy: 1, squares: 0 })
      const { rank, up, down } = await cut(name, 2)
      expect([rank, new Set([...up, ...down])]).toEqual([2, new Set([0])])
    }
  })

  it('has the same bits for any threads, tiles and kernels', async () => {
    const all = async (sources: Map<string, Source>, options: MeasureOptions) => {
      const names = ['small', 'large', 'wide']
      const targets = new Map(names.map((name) => [name, { tensor: stored(name), rank: 3 }]))
      const tensors = new Map(names.map((name) => [name, stored(name)]))
      const found = [
        await measureLowRank(targets, sources, options),
        await measureRowNorms(tensors, sources, options),
      ]
      return JSON.stringify(found.map((map) => [...map]))
    }
    const expected = await all(inMemory, {})
    expect(await all(inMemory, { kernels: 'reference', tileElements: 5000 })).toBe(expected)
    expect(await all(onDisk, { threads: 2, tileElements: 3000 })).toBe(expected)
  })

  it('lists what cannot be cut, and reports progress of all passes', async () => {
    const targets = new Map([
      ['vector', { tensor: stored('vector'), rank: 1 }],
      ['small', { tensor: stored('small'), rank: 0, energy: 2 }],
    ])
    await expect(measureLowRank(targets, inMemory)).rejects.toThrow(
      /not-a-matrix[\s\S]*bad-rank[\s\S]*bad-energy/,
    )
    const bad = { tensor: stored('bad'), rank: 1 }
    await expect(measureLowRank(new Map([['bad', bad]]), inMemory)).rejects.toThrow(/not-finite[\s\S]*2 such/)
    const seen: number[] = []
    const large = new Map([['large', { tensor: stored('large'), rank: 1 }]])
    await measureLowRank(large, inMemory, {
      onProgress: ({ bytesDone, bytesTotal }) => seen.push(bytesDone, bytesTotal),
    })
    expect(seen).toEqual([3 * 436_800, 3 * 436_800])
    expect(await measureLowRank(new Map(), inMemory)).toEqual(new Map())
  })
})

describe('measureRowNorms', () => {
  it('are the norms of rows', async () => {
    const norms = (await measureRowNorms(new Map([['wide', stored('wide')]]), inMemory)).get('wide')!
    const values = valuesOf('wide')
    for (const [row, norm] of norms.entries())
      expect(norm).toBe(
        Math.fround(
          Math.sqrt(values.subarray(600 * row, 600 * (row + 1)).reduce((sum, x) => sum + x * x, 0)),
        ),
      )
    await expect(measureRowNorms(new Map([['v', stored('vector')]]), inMemory)).rejects.toThrow(
      'not-a-matrix',
    )
  })
})
