import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  evaluate,
  type MeasureOptions,
  type MeasureProgress,
  measureGrams,
  measureMoments,
  measureStatistics,
  measureThresholds,
  type Threshold,
} from '@polygraft/engine'
import { decode, encode } from '@polygraft/kernels'
import {
  type ByteSource,
  byteSize,
  type Expr,
  type FloatDType,
  ModelError,
  read,
  type Source,
  type Tensor,
} from '@polygraft/tensor'
import { fileSource } from '@polygraft/tensor-io/node'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Bytes, f32, sourceOf } from '../test/memory.js'

const DTYPES: readonly FloatDType[] = ['BF16', 'F16', 'F32', 'F64']
// More than one task (16 blocks of 64 Ki) and a ragged end.
const n = 17 * 65536 + 4321

function floats(dtype: FloatDType, values: Float64Array): Bytes {
  const bytes = new Uint8Array(byteSize(dtype, values.length))
  encode(dtype, values, bytes)
  return { dtype, shape: [values.length], bytes }
}

const base = Float64Array.from({ length: n }, (_, i) => Math.sin(i * i))
const post = base.map((x, i) => (i % 3 === 0 ? x : x + Math.cos(i) / 64))
post[70_000] = Number.NaN
post[70_001] = Number.NEGATIVE_INFINITY
const source = sourceOf('s', {
  ...Object.fromEntries(
    DTYPES.flatMap((dtype) => [
      [`base ${dtype}`, floats(dtype, base)],
      [`post ${dtype}`, floats(dtype, post)],
    ]),
  ),
  int: { dtype: 'I8', shape: [1], bytes: Uint8Array.of(1) },
  few: f32([1, 2]),
  none: f32([]),
})
const stored = (name: string): Tensor => ({ ...source.tensors.get(name)!, expr: read('s', name) })
const delta = (dtype: FloatDType): Tensor => {
  const expr: Expr = { op: 'sub', args: [read('s', `post ${dtype}`), read('s', `base ${dtype}`)] }
  return { dtype: dtype === 'F64' ? 'F64' : 'F32', shape: [n], expr }
}
const inMemory = new Map([['s', source]])

let dir: string
let onDisk: Map<string, Source>
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'polygraft-measure-'))
  const path = join(dir, 'model.safetensors')
  await writeFile(path, new Uint8Array(await source.shards.get('model.safetensors')!.arrayBuffer()))
  onDisk = new Map([['s', { ...source, shards: new Map([['model.safetensors', fileSource(path)]]) }]])
})
afterAll(() => rm(dir, { recursive: true }))

async function measureAll(sources: Map<string, Source>, options: MeasureOptions): Promise<string> {
  const wide = ['BF16', 'F64'] as const
  const pairs = wide.map((dtype) => [dtype, [stored(`base ${dtype}`), stored(`post ${dtype}`)]] as const)
  const tensors = new Map(wide.map((dtype) => [dtype, delta(dtype)] as const))
  const wanted = [
    ['delta', { tensor: delta('BF16'), keep: Math.floor(n / 5) }] as const,
    ['base', { tensor: stored('base F16'), keep: 100 }] as const,
  ]
  const grams = new Map([
    ['both', { tensors: [delta('BF16'), stored('base F32'), stored('post F16')] }],
    ['one', { tensors: [stored('base F64')] }],
    ['rows', { tensors: [delta('BF16'), stored('base F32')], by: 'rows' as const, width: n / 3 }],
    ['columns', { tensors: [delta('BF16'), stored('base F32')], by: 'columns' as const, width: 3 }],
  ])
  const results = [
    await measureGrams(grams, sources, options),
    await measureMoments(new Map(pairs), sources, options),
    await measureStatistics(tensors, sources, options),
    await measureThresholds(new Map(wanted), sources, options),
  ]
  return JSON.stringify(
    results.map((result) => [...result]),
    (_, value) => (value instanceof Float64Array ? [...value] : value),
  )
}

describe('what is measured', () => {
  it('has the same bits for any threads, tiles and kernels', async () => {
    const expected = await measureAll(inMemory, {})
    expect(await measureAll(inMemory, { kernels: 'reference', tileElements: 5000 })).toBe(expected)
    expect(await measureAll(inMemory, { tileElements: 33_333, threads: 2 }), 'not local: no threads').toBe(
      expected,
    )
    expect(await measureAll(onDisk, { threads: 0 })).toBe(expected)
    for (const [threads, tileElements] of [
      [1, 1024],
      [3, 20_000],
    ] as const)
      expect(await measureAll(onDisk, { threads, tileElements })).toBe(expected)
  })

  it('is right', async () => {
    const pair = [stored('base F32'), stored('post F32')] as const
    const moments = (await measureMoments(new Map([['t', pair]]), inMemory)).get('t')!
    const statistics = (await measureStatistics(new Map([['t', delta('F32')]]), inMemory)).get('t')!
    const [a, b] = [Float32Array.from(base), Float32Array.from(post)]
    const sums = { sumA2: 0, sumB2: 0, dot: 0, sumDelta2: 0, sumAbs: 0 }
    const exact = { count: n, nonFinite: 2, changed: 0, maxAbsDelta: 0 }
    const extrema = { count: n, nonFinite: 2, min: 0, max: 0, zeros: 0 }
    for (let i = 0; i < n; i++) {
      const [x, y] = [a[i]!, b[i]!]
      if (!Number.isFinite(y)) continue
      sums.sumA2 += x * x
      sums.sumB2 += y * y
      sums.dot += x * y
      sums.sumDelta2 += (y - x) ** 2
      exact.changed += Number(x !== y)
      exact.maxAbsDelta = Math.max(exact.maxAbsDelta, Math.abs(y - x))
      const d = Math.fround(y - x)
      sums.sumAbs += Math.abs(d)
      extrema.zeros += Number(d === 0)
      extrema.min = Math.min(extrema.min, d)
      extrema.max = Math.max(extrema.max, d)
    }
    expect(moments).toMatchObject(exact)
    expect(statistics).toMatchObject(extrema)
    for (const [key, sum] of Object.entries(sums))
      expect(({ ...statistics, ...moments } as unknown as typeof sums)[key as 'dot'] / sum).toBeCloseTo(1, 10)
  })

  it('has all products of several tensors, those of pairs among them', async () => {
    const tensors = [stored('base F32'), stored('post F32'), delta('F32')]
    const { products } = (await measureGrams(new Map([['t', { tensors }]]), inMemory)).get('t')!
    const pair = [stored('base F32'), stored('post F32')] as const
    const moments = (await measureMoments(new Map([['t', pair]]), inMemory)).get('t')!
    expect([products[0], products[1], products[3]]).toEqual([moments.sumA2, moments.dot, moments.sumB2])
    expect(products[2]! / (products[1]! - products[0]!)).toBeCloseTo(1, 5)
    expect(products[4]! / (products[3]! - products[1]!)).toBeCloseTo(1, 5)
    expect(products[5]! / moments.sumDelta2).toBeCloseTo(1, 5)
  })

  it('has the products of rows and columns, in whole rows', async () => {
    const [rows, width] = [1021, 1031] // more than one task
    const values = Float64Array.from({ length: rows * width }, (_, i) => Math.sin(i * i))
    values[5 * width + 3] = Number.NaN
    const other = values.map((x, i) => x * x + (i % 3))
    const source = sourceOf('m', { a: floats('F32', values), b: floats('BF16', other) })
    const tensors = ['a', 'b'].map(
      (name): Tensor => ({ ...source.tensors.get(name)!, expr: read('m', name) }),
    )
    const target = (by: 'rows' | 'columns') => ({ tensors, by, width })
    const grams = await measureGrams(
      new Map([
        ['rows', target('rows')],
        ['columns', target('columns')],
      ]),
      new Map([['m', source]]),
    )
    const decoded = ['a', 'b'].map((_, i) => {
      const dtype = i === 0 ? 'F32' : 'BF16'
      const bytes = floats(dtype, i === 0 ? values : other).bytes
      const out = new Float64Array(rows * width)
      decode(dtype, bytes, out)
      return out
    })
    const [a, b] = decoded as [Float64Array, Float64Array]
    const sums = (of: (i: number) => number, groups: number) => {
      const all = new Float64Array(groups * 3)
      for (let i = 0; i < a.length; i++) {
        if (Number.isNaN(a[i]!)) continue
        all[of(i) * 3]! += a[i]! * a[i]!
        all[of(i) * 3 + 1]! += a[i]! * b[i]!
        all[of(i) * 3 + 2]! += b[i]! * b[i]!
      }
      return all
    }
    const expected = {
      rows: sums((i) => Math.floor(i / width), rows),
      columns: sums((i) => i % width, width),
    }
    for (const by of ['rows', 'columns'] as const) {
      const { products } = grams.get(by)!
      expect(products.length).toBe(expected[by].length)
      expect(products.every((x, i) => Math.abs(x - expected[by][i]!) < 1e-9)).toBe(true)
    }
    const row = { dtype: 'F32' as const, shape: [width] }
    const alone = tensors.map(({ expr }): Tensor => {
      return { ...row, expr: { op: 'rows', arg: expr, width, runs: [[7, 1]] } }
    })
    const [one] = (
      await measureGrams(new Map([['t', { tensors: alone }]]), new Map([['m', source]]))
    ).values()
    expect(grams.get('rows')!.products.slice(21, 24)).toEqual(one!.products)
  })

  it('tells of progress to the last byte', async () => {
    const seen: MeasureProgress[] = []
    const wanted = new Map([['d', { tensor: delta('BF16'), keep: 5 }]])
    await measureThresholds(wanted, inMemory, { onProgress: (p) => seen.push(p) })
    expect(seen.at(-1)).toEqual({ tensor: 'd', bytesDone: 8 * n, bytesTotal: 8 * n })
  })

  it('is refused for integers and unequal sizes, all by name', async () => {
    const pairs = new Map([
      ['x', [stored('int'), stored('int')] as const],
      ['y', [stored('few'), stored('none')] as const],
    ])
    await expect(measureMoments(pairs, inMemory)).rejects.toThrow('shape-mismatch')
    pairs.delete('y')
    await expect(measureMoments(pairs, inMemory)).rejects.toThrow('not-a-float')
    const grams = new Map([
      ['x', { tensors: [] }],
      ['y', { tensors: [stored('few'), stored('none')] }],
    ])
    await expect(measureGrams(grams, inMemory)).rejects.toThrow(/bad-count[\s\S]*shape-mismatch/)
    const rows = new Map([['few', { tensors: [stored('few')], by: 'rows' as const, width: 3 }]])
    await expect(measureGrams(rows, inMemory)).rejects.toThrow(/whole rows[\s\S]*bad-count[\s\S]*few/)
    const keep = (count: number) =>
      measureThresholds(new Map([['x', { tensor: stored('few'), keep: count }]]), inMemory)
    await expect(keep(-1)).rejects.toThrow('bad-count')
    await expect(keep(0.5)).rejects.toThrow('bad-count')
  })

  it('is nothing for no elements, and for no tensors', async () => {
    const tensor = stored('none')
    expect((await measureStatistics(new Map([['t', tensor]]), inMemory)).get('t')).toMatchObject({
      count: 0,
      sum: 0,
    })
    expect((await measureThresholds(new Map([['t', { tensor, keep: 3 }]]), inMemory)).get('t')).toMatchObject(
      { kept: 0 },
    )
    expect(await measureMoments(new Map(), onDisk, { threads: 1 })).toEqual(new Map())
  })

  it.each([0, 2])('stops when told to, and when a file ends early; %d threads', async (threads) => {
    const tensors = new Map([['t', delta('F32')]])
    const signal = AbortSignal.abort(new Error('enough'))
    await expect(measureStatistics(tensors, onDisk, { threads, signal })).rejects.toThrow('enough')
    const later = new AbortController()
    const onProgress = () => later.abort(new Error('halfway'))
    const pairs = new Map([['t', [delta('F32'), delta('F64')] as const]])
    await expect(
      measureMoments(pairs, onDisk, { threads, signal: later.signal, onProgress }),
    ).rejects.toThrow('halfway')
    const path = join(dir, `short-${threads}.safetensors`)
    await writeFile(path, new Uint8Array(1000))
    const short = fileSource(path)
    const sources = new Map([['s', { ...source, shards: new Map([['model.safetensors', short]]) }]])
    await truncate(path, 500)
    const error = await measureStatistics(tensors, sources, { threads }).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(ModelError)
  })
})

const value = fc.oneof(
  fc.constantFrom(0, -0, 1, -1, 1, 2, -2, 1e-40, -1e-40, 5e-324, 65504, Infinity, -Infinity, Number.NaN),
  fc.double({ noNaN: true }),
  fc.integer({ min: -3, max: 3 }),
)

/** The definition: sort by magnitude, then by index. */
function oracle(values: Float64Array, keep: number): { kept: Set<number>; nonFinite: number } {
  const finite = [...values.keys()].filter((i) => Number.isFinite(values[i]))
  const ranked = finite.sort((i, j) => Math.abs(values[j]!) - Math.abs(values[i]!) || i - j)
  return { kept: new Set(ranked.slice(0, keep)), nonFinite: values.length - finite.length }
}

function isKept({ threshold, tieEnd }: Threshold, x: number, i: number): boolean {
  return Math.abs(x) > threshold || (Math.abs(x) === threshold && i < tieEnd)
}

async function expectThreshold(dtype: FloatDType, given: Float64Array, keep: number): Promise<Threshold> {
  const bytes = floats(dtype, given)
  const values = new Float64Array(given.length)
  decode(dtype, bytes.bytes, values)
  const sources = new Map([['s', sourceOf('s', { t: bytes })]])
  const tensor: Tensor = { dtype, shape: [given.length], expr: read('s', 't') }
  const threshold = (await measureThresholds(new Map([['t', { tensor, keep }]]), sources)).get('t')!
  const { kept, nonFinite } = oracle(values, keep)
  expect(threshold.nonFinite).toBe(nonFinite)
  expect(threshold.kept).toBe(kept.size)
  const chosen = values.map((x, i) => Number(Number.isFinite(x) && isKept(threshold, x, i)))
  expect(chosen).toEqual(values.map((_, i) => Number(kept.has(i))))
  return threshold
}

describe('measureThresholds', () => {
  it('keeps what sorting by magnitude and index keeps', async () => {
    const property = fc.asyncProperty(
      fc.constantFrom(...DTYPES),
      fc.array(value, { maxLength: 60 }),
      fc.nat(70),
      (dtype, values, keep) => expectThreshold(dtype, Float64Array.from(values), keep).then(() => {}),
    )
    await fc.assert(property, { numRuns: 300 })
  })

  it('breaks ties by index over many segments', async () => {
    const size = 40 * 65536
    const tensor: Tensor = { dtype: 'BF16', shape: [size], expr: read('s', 't') }
    const sources = new Map([['s', sourceOf('s', { t: floats('BF16', new Float64Array(size).fill(-0.5)) })]])
    for (const keep of [1, 16 * 65536, 16 * 65536 + 1, size - 1]) {
      const { threshold, tieEnd } = (
        await measureThresholds(new Map([['t', { tensor, keep }]]), sources)
      ).get('t')!
      expect({ threshold, tieEnd }).toEqual({ threshold: 0.5, tieEnd: keep })
    }
    // 0 to 6 again and again: the kept 3s lie in the second segment of 16 blocks.
    const steps = floats(
      'F32',
      Float64Array.from({ length: size }, (_, i) => i % 7),
    )
    const above = Math.floor(size / 7) * 3 // 4, 5 and 6; size % 7 is 4 or less
    const nth = 200_000
    const found = await measureThresholds(
      new Map([['t', { tensor: { ...tensor, dtype: 'F32' }, keep: above + nth }]]),
      new Map([['s', sourceOf('s', { t: steps })]]),
    )
    expect(size % 7).toBeLessThan(5)
    expect(found.get('t')).toEqual({
      threshold: 3,
      tieEnd: (nth - 1) * 7 + 3 + 1,
      kept: above + nth,
      keptAtThreshold: nth,
      nonFinite: 0,
    })
  })

  it.each(['usual', 'misleading', 'many nearby', 'few values', 'hardly finite'])(
    'is exact for large tensors, sample %s',
    async (kind) => {
      const size = 2 ** 18 + 77
      const values = Float32Array.from({ length: size }, (_, i) => {
        const x = Math.sin(i * i)
        // Samples are 128 runs of 128 elements, evenly spread: here they alone are small.
        if (kind === 'misleading') return i % ((size - 128) / 128) < 128 ? x / 1000 : x
        if (kind === 'few values') return Math.round(x * 3)
        if (kind === 'hardly finite') return x > -0.8 ? (i % 2 ? Number.NaN : -Infinity) : x
        return kind === 'many nearby' ? 1 + x / 1000 : x ** 5
      })
      const sources = new Map([['s', sourceOf('s', { t: f32(values) })]])
      const tensor: Tensor = { dtype: 'F32', shape: [size], expr: read('s', 't') }
      const sorted = values.map(Math.abs).filter(Number.isFinite).sort()
      const finite = sorted.length
      for (const keep of [1, 1000, 50_000, finite - 1, size - 1]) {
        const wanted = new Map([['t', { tensor, keep }]])
        const found = (await measureThresholds(wanted, sources)).get('t')!
        expect(found.threshold).toBe(keep < finite ? sorted[finite - keep] : 0)
        expect(values.filter((x, i) => Number.isFinite(x) && isKept(found, x, i)).length).toBe(
          Math.min(keep, finite),
        )
        expect(found.nonFinite).toBe(size - finite)
      }
    },
  )

  it.each(['collected whole', 'sampled', 'with one that misleads'])(
    'reads once what task vectors share, and finds what each has alone; %s',
    async (kind) => {
      const size = kind === 'collected whole' ? 70_001 : 2 ** 18 + 77
      const noise = (seed: number) =>
        Float32Array.from({ length: size }, (_, i) => {
          const misleads = seed === 2 && kind === 'with one that misleads'
          const x = Math.sin(i * i + seed)
          return misleads && i % ((size - 128) / 128) < 128 ? x / 1000 : x
        })
      const names = ['base', 'a', 'b', 'c'] as const
      const tensors = Object.fromEntries(names.map((name, seed) => [name, f32(noise(seed))]))
      const source = sourceOf('s', { ...tensors, other: f32([1, 2, 3]) })
      let bytesRead = 0
      const [file, bytes] = [...source.shards][0]!
      const counting = {
        size: bytes.size,
        slice(begin: number, end: number) {
          bytesRead += end - begin
          return bytes.slice(begin, end)
        },
        arrayBuffer: () => bytes.arrayBuffer(),
      }
      const sources = new Map([['s', { ...source, shards: new Map([[file, counting as ByteSource]]) }]])
      const vector = (name: string): Tensor => {
        const expr: Expr = { op: 'sub', args: [read('s', name), read('s', 'base')] }
        return { dtype: 'F32', shape: [size], expr }
      }
      const wanted = new Map([
        ...(['a', 'b', 'c'] as const).map((name, i) => {
          const keep = Math.floor(size / (i + 3))
          return [name as string, { tensor: vector(name), keep }] as const
        }),
        ['other', { tensor: { dtype: 'F32' as const, shape: [3], expr: read('s', 'other') }, keep: 1 }],
      ])
      const alone = new Map<string, Threshold>()
      for (const [name, one] of wanted)
        alone.set(name, (await measureThresholds(new Map([[name, one]]), sources)).get(name)!)
      const bytesAlone = bytesRead
      bytesRead = 0
      expect(await measureThresholds(wanted, sources)).toEqual(alone)
      // Three vectors read six tensors apart, and four together.
      expect(bytesAlone - bytesRead).toBe(2 * size * 4)
    },
  )

  it('ranks tensors that are collected whole', async () => {
    const size = 2 ** 16 + 5 // two tiles, and too many to be sorted
    for (const values of [
      Float64Array.from({ length: size }, (_, i) => Math.sin(i * i)),
      Float64Array.from({ length: size }, (_, i) => (i % 3 ? (i % 7) - 3 : i % 2 ? Number.NaN : 0)),
    ])
      for (const keep of [1, 30_000, size - 1]) await expectThreshold('F32', values, keep)
  })

  it('treats -0 as +0 and passes infinities on', async () => {
    const zeros = await expectThreshold('F32', Float64Array.of(-0, 1, 0, -0), 3)
    expect(zeros).toEqual({ threshold: 0, tieEnd: 3, kept: 3, keptAtThreshold: 2, nonFinite: 0 })
    const none = await expectThreshold('F16', Float64Array.of(65504, Infinity, Number.NaN), 0)
    expect(none).toEqual({ threshold: 65504, tieEnd: 0, kept: 0, keptAtThreshold: 0, nonFinite: 2 })
    expect(isKept(none, Infinity, 1)).toBe(true)
  })
})

describe('keep', () => {
  const pick = { tensor: delta('BF16'), keep: 300_000 }
  const whole = (expr: Expr, dtype: FloatDType = 'F32', size = n): Tensor => ({ dtype, shape: [size], expr })
  const keepOf = async (): Promise<Expr> => {
    const { threshold, tieEnd } = (await measureThresholds(new Map([['d', pick]]), inMemory)).get('d')!
    return { op: 'keep', arg: pick.tensor.expr, threshold, tieEnd }
  }

  it('keeps exactly the elements that were measured, whatever is evaluated at a time', async () => {
    const all = new Float32Array((await evaluate(pick.tensor, inMemory)).buffer)
    const expr = await keepOf()
    const kept = new Float32Array((await evaluate(whole(expr), inMemory)).buffer)
    const expected = oracle(Float64Array.from(all), pick.keep).kept
    const wrong = kept.findIndex((x, i) => {
      const passed = expected.has(i) || !Number.isFinite(all[i]!)
      return !Object.is(x, passed ? all[i]! : 0)
    })
    expect(wrong).toBe(-1)
    for (const [begin, end] of [
      [1, 2],
      [65_530, 70_010],
      [n - 100_001, n],
    ] as const)
      for (const kernels of ['simd', 'reference'] as const) {
        const part = new Float32Array((await evaluate(whole(expr), inMemory, { begin, end, kernels })).buffer)
        expect(part.every((x, i) => Object.is(x, kept[begin + i]!))).toBe(true)
      }
  })

  it('counts from its own first element inside other expressions', async () => {
    const expr = await keepOf()
    const first: Expr = { op: 'read', source: 's', tensor: 'few' }
    const parts: Expr = { op: 'concat', args: [first, expr], sizes: [2, n] }
    const last: Expr = { op: 'rows', arg: parts, width: 1, runs: [[n - 50_000, 50_002]] }
    const joined = new Float32Array((await evaluate(whole(last, 'F32', 50_002), inMemory)).buffer)
    const alone = new Float32Array((await evaluate(whole(expr), inMemory)).buffer)
    expect(joined.every((x, i) => Object.is(x, alone[n - 50_002 + i]!))).toBe(true)
  })
})
