import {
  ACTIVATIONS,
  cacheBytes,
  createKernelMemory,
  createProcessor,
  decode,
  encode,
  encodeInstruction,
  type Operands,
  type OperationName,
  PANEL_DTYPES,
  PROCESSOR_SCRATCH_BYTES,
  packedBytes,
  packPanels,
  randomValues,
  scoreBytes,
} from '@polygraft/kernels'
import { byteSize } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'

/* Operations against plain TypeScript in F64. Letters: T rows, H columns, D head_dim, E experts. */

/** A memory in which arrays are laid one after another, and a processor over it that runs each instruction part by part. */
function createDesk(parts: number) {
  const memory = createKernelMemory(8 * 2 ** 20)
  const processor = createProcessor(memory, 0)
  let end = Math.ceil(PROCESSOR_SCRATCH_BYTES / 64) * 64
  const room = (bytes: number) => {
    const address = end
    end += Math.ceil(bytes / 64) * 64 + 64
    return address
  }
  return {
    room,
    floats: (address: number, count: number) => new Float32Array(memory.buffer, address, count),
    words: (address: number, count: number) => new Uint32Array(memory.buffer, address, count),
    put(values: Float32Array | Uint32Array | Float64Array) {
      const address = room(values.byteLength)
      new Uint8Array(memory.buffer).set(new Uint8Array(values.buffer), address)
      return address
    },
    /** A matrix packed as `dtype`, and its values after rounding. */
    pack(dtype: (typeof PANEL_DTYPES)[number], values: Float32Array, n: number, k: number) {
      const bytes = new Uint8Array(byteSize(dtype, n * k))
      encode(dtype, values, bytes)
      const stored = new Float32Array(n * k)
      decode(dtype, bytes, stored)
      const size = packedBytes(dtype, n, k)
      const address = room(size)
      packPanels(dtype, bytes, 0, k, new Uint8Array(memory.buffer, address, size))
      return { address, stored, kind: PANEL_DTYPES.indexOf(dtype) }
    },
    run<Name extends OperationName>(name: Name, operands: Operands<Name>) {
      const program = Float64Array.from(encodeInstruction(name, operands))
      for (let part = 0; part < parts; part++) processor.run(program, part, parts, () => {})
    },
  }
}

function random(count: number, name: string): Float32Array {
  const values = new Float32Array(count)
  randomValues('normal', 1, 1, name, 0, values)
  return values
}

function expectClose(actual: Float32Array, expected: ArrayLike<number>, tolerance = 2e-6): void {
  expect(actual).toHaveLength(expected.length)
  for (const [i, value] of actual.entries())
    expect(Math.abs(value - expected[i]!)).toBeLessThan(tolerance * (1 + Math.abs(expected[i]!)))
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)

describe.each([1, 3])('with %i parts', (parts) => {
  it.each(PANEL_DTYPES)('embed looks up and scales rows of %s', (dtype) => {
    const desk = createDesk(parts)
    const { address, stored, kind } = desk.pack(dtype, random(11 * 6, 'table'), 11, 6)
    const tokens = Uint32Array.of(10, 0, 3, 3)
    const out = desk.room(4 * 6 * 4)
    const places = { table: address, dtype: kind, size: 11, tokens: desk.put(tokens), out }
    desk.run('embed', { ...places, rows: 4, columns: 6, scale: 2 })
    const expected = [...tokens].flatMap((token) => [...stored.subarray(token * 6, token * 6 + 6)])
    expect([...desk.floats(out, 24)]).toEqual(expected.map((value) => value * 2))
  })

  it('norm is x / sqrt(mean(x^2) + eps) * weight', () => {
    const desk = createDesk(parts)
    const [x, weight] = [random(5 * 7, 'x'), random(7, 'weight')]
    const out = desk.room(35 * 4)
    desk.run('norm', { x: desk.put(x), weight: desk.put(weight), out, rows: 5, columns: 7, eps: 0.1 })
    const expected = [...x].map((value, i) => {
      const row = [...x.subarray(i - (i % 7), i - (i % 7) + 7)]
      return (value / Math.sqrt(sum(row.map((v) => v * v)) / 7 + 0.1)) * weight[i % 7]!
    })
    expectClose(desk.floats(out, 35), expected)
  })

  it.each([0, 1])('linear is x W^T + b, added where adds = %i', (adds) => {
    const desk = createDesk(parts)
    const [x, bias, before] = [random(3 * 20, 'x'), random(37, 'bias'), random(3 * 37, 'out')]
    const { address, stored, kind } = desk.pack('BF16', random(37 * 20, 'w'), 37, 20)
    const out = desk.put(before)
    const places = { x: desk.put(x), weight: address, dtype: kind, bias: desk.put(bias), out }
    desk.run('linear', { ...places, rows: 3, n: 37, k: 20, adds })
    const expected = [...before].map((value, i) => {
      const [row, column] = [Math.floor(i / 37), i % 37]
      const products = Array.from({ length: 20 }, (_, j) => x[row * 20 + j]! * stored[column * 20 + j]!)
      return sum(products) + bias[column]! + (adds ? value : 0)
    })
    expectClose(desk.floats(out, 111), expected, 1e-5)
  })

  it('addScaled, scale, gated, addGated and gather do what their formulas say', () => {
    const desk = createDesk(parts)
    const [x, y, logits] = [random(12, 'x'), random(12, 'y'), random(3, 'logits')]
    const places = { x: desk.put(x), y: desk.put(y) }
    const out = desk.put(y)
    desk.run('addScaled', { x: places.x, out, count: 12, factor: 0.5 })
    expectClose(
      desk.floats(out, 12),
      [...y].map((value, i) => value + 0.5 * x[i]!),
    )
    desk.run('scale', { x: out, count: 12, factor: 4 })
    expectClose(
      desk.floats(out, 12),
      [...y].map((value, i) => 4 * value + 2 * x[i]!),
    )
    const activated = desk.put(x)
    desk.run('gated', { activation: ACTIVATIONS.indexOf('silu'), x: activated, y: places.y, count: 12 })
    expectClose(
      desk.floats(activated, 12),
      [...x].map((value, i) => (value / (1 + Math.exp(-value))) * y[i]!),
    )
    const shared = desk.put(x)
    const shape = { rows: 3, columns: 4, factor: 2 }
    desk.run('addGated', { logits: desk.put(logits), y: places.y, out: shared, ...shape })
    const share = (i: number) => 2 / (1 + Math.exp(-logits[Math.floor(i / 4)]!))
    expectClose(
      desk.floats(shared, 12),
      [...x].map((value, i) => value + share(i) * y[i]!),
    )
    const gathered = desk.room(4 * 4 * 4)
    const indices = desk.put(Uint32Array.of(2, 0, 2, 1))
    desk.run('gather', { x: places.x, indices, out: gathered, count: 4, columns: 4 })
    const rows = [2, 0, 2, 1].flatMap((row) => [...x.subarray(row * 4, row * 4 + 4)])
    expect([...desk.floats(gathered, 16)]).toEqual(rows)
  })

  it.each([0, 1])('gate takes the largest, lower index first, normalize = %i', (normalize) => {
    const desk = createDesk(parts)
    const logits = Float32Array.of(1, 3, 3, 0, -1, -2, 4, 4)
    const [chosen, weights] = [desk.room(16), desk.room(16)]
    const places = { logits: desk.put(logits), chosen, weights }
    desk.run('gate', { ...places, rows: 2, experts: 4, topK: 2, normalize })
    expect([...desk.words(chosen, 4)]).toEqual([1, 2, 2, 3])
    const softmax = [0, 4].flatMap((begin) => {
      const powers = [...logits.subarray(begin, begin + 4)].map(Math.exp)
      return powers.map((power) => power / sum(powers))
    })
    expectClose(desk.floats(places.logits, 8), softmax)
    const kept = [1, 2, 6, 7].map((i) => softmax[i]!)
    expectClose(desk.floats(weights, 4), normalize ? kept.map(() => 0.5) : kept)
  })

  it('group, linearOfExperts and combine are the weighted sum over the chosen experts', () => {
    const desk = createDesk(parts)
    const [rows, experts, topK, n, k] = [5, 3, 2, 9, 4]
    const chosen = Uint32Array.of(0, 2, 2, 0, 0, 2, 2, 0, 0, 2) // nobody takes expert 1
    const [x, weights, before] = [
      random(rows * k, 'x'),
      random(rows * topK, 'weights'),
      random(rows * n, 'out'),
    ]
    const packed = (['F32', 'BF16', 'F16'] as const).map((dtype, e) =>
      desk.pack(dtype, random(n * k, `w${e}`), n, k),
    )
    const words = (count: number) => desk.room(count * 4)
    const [offsets, sources, places] = [words(experts + 1), words(rows * topK), words(rows * topK)]
    desk.run('group', { chosen: desk.put(chosen), offsets, sources, places, rows, experts, topK })
    expect([...desk.words(offsets, 4)]).toEqual([0, 5, 5, 10])
    expect([...desk.words(sources, 10)]).toEqual([0, 1, 2, 3, 4, 0, 1, 2, 3, 4])
    const [grouped, y] = [words(rows * topK * k), words(rows * topK * n)]
    desk.run('gather', { x: desk.put(x), indices: sources, out: grouped, count: rows * topK, columns: k })
    const table = desk.put(Float64Array.from(packed.flatMap(({ address, kind }) => [address, kind])))
    desk.run('linearOfExperts', { x: grouped, table, offsets, experts, out: y, n, k })
    const out = desk.put(before)
    const shape = { rows, columns: n, topK, factor: 0.5 }
    desk.run('combine', { y, places, weights: desk.put(weights), out, ...shape })
    const expected = [...before].map((value, i) => {
      const [row, column] = [Math.floor(i / n), i % n]
      const parts = [0, 1].map((slot) => {
        const { stored } = packed[chosen[row * topK + slot]!]!
        const products = Array.from({ length: k }, (_, j) => x[row * k + j]! * stored[column * k + j]!)
        return weights[row * topK + slot]! * sum(products)
      })
      return value + 0.5 * sum(parts)
    })
    expectClose(desk.floats(out, rows * n), expected, 1e-5)
  })
})

interface AttentionCase {
  readonly heads: number
  readonly keyValueHeads: number
  readonly headDim: number
  readonly rotated: number
  readonly window: number
  readonly count: number
  readonly hasNorms: boolean
}

const CASES: readonly AttentionCase[] = [
  { heads: 2, keyValueHeads: 2, headDim: 8, rotated: 8, window: 0, count: 5, hasNorms: false },
  { heads: 4, keyValueHeads: 2, headDim: 6, rotated: 4, window: 0, count: 70, hasNorms: true },
  { heads: 6, keyValueHeads: 1, headDim: 10, rotated: 10, window: 3, count: 40, hasNorms: false },
  { heads: 2, keyValueHeads: 2, headDim: 16, rotated: 16, window: 20, count: 290, hasNorms: false },
]
const EPS = 1e-6

/** q, k, v of the whole sequence, and what attention gives for it. */
function attentionReference(c: AttentionCase) {
  const { heads, keyValueHeads, headDim, rotated, window, count } = c
  const [q, k, v] = [
    random(count * heads * headDim, 'q'),
    random(count * keyValueHeads * headDim, 'k'),
    random(count * keyValueHeads * headDim, 'v'),
  ]
  const [qNorm, kNorm] = [random(headDim, 'qNorm'), random(headDim, 'kNorm')]
  const angle = (position: number, i: number) => position / (3 + i)
  const angles = Array.from({ length: count * (rotated / 2) }, (_, i) =>
    angle(Math.floor(i / (rotated / 2)), i % (rotated / 2)),
  )
  const prepare = (head: number[], norm: Float32Array, position: number) => {
    const size = Math.sqrt(sum(head.map((value) => value * value)) / headDim + EPS)
    const normed = c.hasNorms ? head.map((value, i) => (value / size) * norm[i]!) : head
    return normed.map((value, i) => {
      if (i >= rotated) return value
      const half = rotated / 2
      const turn = angle(position, i % half)
      const other = i < half ? -normed[i + half]! : normed[i - half]!
      return value * Math.cos(turn) + other * Math.sin(turn)
    })
  }
  const headOf = (values: Float32Array, row: number, head: number, width: number) => [
    ...values.subarray((row * width + head) * headDim, (row * width + head + 1) * headDim),
  ]
  const keys = Array.from({ length: count * keyValueHeads }, (_, i) =>
    prepare(
      headOf(k, Math.floor(i / keyValueHeads), i % keyValueHeads, keyValueHeads),
      kNorm,
      Math.floor(i / keyValueHeads),
    ),
  )
  const out: number[] = []
  for (let row = 0; row < count; row++)
    for (let head = 0; head < heads; head++) {
      const query = prepare(headOf(q, row, head, heads), qNorm, row)
      const group = Math.floor((head * keyValueHeads) / heads)
      const first = window === 0 ? 0 : Math.max(0, row - window + 1)
      const positions = Array.from({ length: row + 1 - first }, (_, i) => first + i)
      const powers = positions.map((p) =>
        Math.exp(0.3 * sum(query.map((value, i) => value * keys[p * keyValueHeads + group]![i]!))),
      )
      const values = positions.map((p) => headOf(v, p, group, keyValueHeads))
      for (let i = 0; i < headDim; i++)
        out.push(sum(powers.map((power, j) => power * values[j]![i]!)) / sum(powers))
    }
  return { q, k, v, qNorm, kNorm, angles, out }
}

/** Rows [begin, end) computed after those before them, in spans of `span` rows. */
function attendInSpans(c: AttentionCase, parts: number, span: number): Float32Array {
  const { heads, keyValueHeads, headDim, rotated, window, count } = c
  const reference = attentionReference(c)
  const desk = createDesk(parts)
  const capacity = Math.ceil(count / 8) * 8
  const cache = desk.room(cacheBytes(keyValueHeads, headDim, capacity))
  const scores = desk.room(parts * scoreBytes(count, heads, keyValueHeads))
  const [q, k, v] = [desk.put(reference.q), desk.put(reference.k), desk.put(reference.v)]
  const [cos, sin] = [
    desk.put(Float32Array.from(reference.angles, Math.cos)),
    desk.put(Float32Array.from(reference.angles, Math.sin)),
  ]
  const norms = c.hasNorms
    ? { qNorm: desk.put(reference.qNorm), kNorm: desk.put(reference.kNorm) }
    : { qNorm: 0, kNorm: 0 }
  const out = desk.room(count * heads * headDim * 4)
  for (let row = 0; row < count; row += span) {
    const place = {
      cache,
      capacity,
      heads,
      keyValueHeads,
      headDim,
      row,
      count: Math.min(span, count - row),
      begin: row,
    }
    desk.run('rotateAndStore', { q, k, v, ...norms, eps: EPS, cos, sin, rotated, ...place })
    desk.run('attend', { q, out, ...place, scale: 0.3, window, scores })
  }
  return desk.floats(out, count * heads * headDim)
}

describe.each(CASES)('attention %o', (c) => {
  it('is softmax(scale q k^T) v over what a position sees', () => {
    expectClose(attendInSpans(c, 1, c.count), attentionReference(c).out, 1e-5)
  })

  it('has the same bits for any number of parts, and token by token', () => {
    const whole = attendInSpans(c, 1, c.count)
    expect(attendInSpans(c, 3, c.count)).toEqual(whole)
    expect(attendInSpans(c, 2, 7)).toEqual(whole)
    if (c.count <= 100) expect(attendInSpans(c, 1, 1)).toEqual(whole)
  })
})

it('copyCache takes the first positions into a cache of another capacity', () => {
  const [keyValueHeads, headDim, count] = [2, 6, 5]
  const desk = createDesk(2)
  const caches = [8, 24].map((capacity) => desk.room(cacheBytes(keyValueHeads, headDim, capacity)))
  const [from, to] = caches as [number, number]
  desk
    .floats(from, cacheBytes(keyValueHeads, headDim, 8) / 4)
    .set(random(cacheBytes(keyValueHeads, headDim, 8) / 4, 'cache'))
  const operands = { from, fromCapacity: 8, to, toCapacity: 24, keyValueHeads, headDim, count }
  desk.run('copyCache', operands)
  const read = (cache: number, capacity: number) => {
    const q = desk.put(random(2 * headDim, 'q'))
    const out = desk.room(2 * headDim * 4)
    const scores = desk.room(2 * scoreBytes(count, 2, keyValueHeads))
    const place = { cache, capacity, heads: 2, keyValueHeads, headDim, row: 0, count: 1, begin: count - 1 }
    desk.run('attend', { q, out, ...place, scale: 1, window: 0, scores })
    return desk.floats(out, 2 * headDim)
  }
  expect(read(to, 24)).toEqual(read(from, 8))
})
