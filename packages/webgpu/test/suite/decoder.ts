import { decode, encode } from '@polygraft/kernels'
import { byteSize, type FloatDType } from '@polygraft/tensor'
import { createDecoderBackend, type Gpu } from '@polygraft/webgpu'
import { type Case, check, checkClose, checkSame, createRandom } from './case.js'
import { ACTIVATIONS, attentionOf, linearOf, normOf, ropeOf, softmaxOf, topKOf } from './references.js'

const DTYPES = ['F32', 'BF16', 'F16'] as const
/** Largest error of F32 on sums of up to some hundred products of numbers below 1, and what follows from it. */
const TOLERANCE = 2e-5

type Backend = ReturnType<typeof createDecoderBackend>
type Weight = Awaited<ReturnType<Backend['upload']>>

/** A weight on the device, and its values as they are stored. */
interface Made {
  readonly weight: Weight
  readonly values: Float32Array
}

/** Random weights and rows on a backend that is closed at the end; `rowsOf` has `values` as embedded tokens. */
function bench(gpu: Gpu, seed: number) {
  const backend = createDecoderBackend(gpu)
  const random = createRandom(seed)
  async function store(dtype: FloatDType, shape: readonly number[], values: Float32Array): Promise<Made> {
    const bytes = new Uint8Array(byteSize(dtype, values.length))
    encode(dtype, values, bytes)
    const stored = new Float32Array(values.length)
    decode(dtype, bytes, stored)
    const read = async (begin: number, end: number) =>
      bytes.subarray(byteSize(dtype, begin), byteSize(dtype, end))
    return { weight: await backend.upload({ dtype, shape, read }), values: stored }
  }
  return {
    backend,
    random,
    store,
    draw: (dtype: FloatDType, ...shape: number[]) =>
      store(dtype, shape, random.values(shape.reduce((a, b) => a * b, 1))),
    /** A step whose row t is row t of `table`. */
    begin(rows: number, half = 0, spans: Parameters<Backend['beginStep']>[0]['spans'] = []) {
      const angles = random.values(rows * half).map((x) => 3 * x)
      const [cos, sin] = [angles.map(Math.cos), angles.map(Math.sin)]
      const tokens = Uint32Array.from({ length: rows }, (_, t) => t)
      return { cos, sin, step: backend.beginStep({ tokens, spans, cos, sin }) }
    },
  }
}

function decoderCase(
  name: string,
  run: (made: ReturnType<typeof bench>, gpu: Gpu) => Promise<void>,
  maxBindingBytes?: number,
): Case {
  return {
    name: `decoder: ${name}`,
    async run(gpu) {
      const { features, arithmetic, live } = gpu
      const limited = maxBindingBytes ? { ...gpu, features, arithmetic, live, maxBindingBytes } : gpu
      const made = bench(limited, name.length)
      try {
        await run(made, gpu)
      } finally {
        await made.backend.close()
      }
    },
  }
}

const absolute = () => 1

async function checkLinear(
  { backend, draw, begin }: ReturnType<typeof bench>,
  dtype: FloatDType,
  [rows, n, k]: readonly [number, number, number],
) {
  const [x, w, b] = [await draw('F32', rows, k), await draw(dtype, n, k), await draw(dtype, n)]
  const { step } = begin(rows)
  const input = backend.embed(step, x.weight, 1)
  const plain = backend.read(backend.linear({ weight: w.weight }, input, 1))
  const biased = backend.read(backend.linear({ weight: w.weight, bias: b.weight }, input, -0.5))
  const what = `${dtype} ${rows} x ${n} x ${k}`
  checkClose(await plain, linearOf(x.values, w.values, k), TOLERANCE, what)
  const expected = linearOf(x.values, w.values, k, b.values).map((value) => -0.5 * value)
  checkClose(await biased, expected, TOLERANCE, `${what}, biased`)
  backend.endStep(step)
}

const SHAPES = [
  [1, 1, 1],
  [3, 67, 129],
  [1, 130, 64],
  [5, 1, 7],
  [65, 67, 33],
  [70, 128, 48],
] as const

export const DECODER_CASES: readonly Case[] = [
  ...DTYPES.map((dtype) =>
    decoderCase(`matmul and matvec by weights of ${dtype}`, async (made) => {
      for (const shape of SHAPES) await checkLinear(made, dtype, shape)
    }),
  ),
  decoderCase(
    'weights beyond the limit of a buffer are split by rows',
    async (made) => {
      await checkLinear(made, 'BF16', [3, 67, 65])
      await checkLinear(made, 'F32', [9, 41, 33])
      const { backend, draw, begin } = made
      const table = await draw('F16', 90, 33)
      check(table.weight.pieces.length > 1, 'one piece')
      const { step } = begin(80)
      const scaled = Array.from(table.values.subarray(0, 80 * 33), (value) => 3 * value)
      checkSame(
        await backend.read(backend.gather(backend.embed(step, table.weight, 3), [79, 0])),
        Float32Array.from([...scaled.slice(79 * 33), ...scaled.slice(0, 33)]),
        'rows',
      )
      backend.endStep(step)
    },
    5000,
  ),
  decoderCase('embedding and RMSNorm', async ({ backend, draw, begin }) => {
    for (const dtype of DTYPES) {
      const [table, w] = [await draw(dtype, 5, 77), await draw(dtype, 77)]
      const { step } = begin(5)
      const rows = backend.embed(step, table.weight, 0.5)
      const embedded = table.values.map((value) => 0.5 * value)
      checkSame(await backend.read(rows), embedded, `embedding ${dtype}`)
      const expected = normOf(embedded, w.values, 1e-3)
      checkClose(await backend.read(backend.norm(rows, w.weight, 1e-3)), expected, TOLERANCE, `norm ${dtype}`)
      backend.endStep(step)
    }
  }),
  ...[
    { heads: 6, keyValueHeads: 2, headDim: 10, half: 5, window: null, normed: false, lengths: [70, 3] },
    { heads: 2, keyValueHeads: 2, headDim: 66, half: 8, window: 5, normed: true, lengths: [9, 75] },
    { heads: 3, keyValueHeads: 1, headDim: 8, half: 0, window: 1, normed: false, lengths: [2, 1] },
  ].map((shape) => decoderCase(`attention, ${JSON.stringify(shape)}`, (made) => checkAttention(made, shape))),
  decoderCase('gated MLP of every activation, and one scaled by a sigmoid', async (made) => {
    const { backend, draw, begin } = made
    const [x, gate, up, down, scale] = [
      await draw('F32', 6, 33),
      await draw('BF16', 45, 33),
      await draw('F16', 45, 33),
      await draw('F32', 33, 45),
      await draw('BF16', 1, 33),
    ]
    const linears = {
      gate: { weight: gate.weight },
      up: { weight: up.weight },
      down: { weight: down.weight },
    }
    for (const activation of ['silu', 'gelu', 'gelu_tanh', 'relu'] as const) {
      const u = linearOf(x.values, up.values, 33)
      const inner = linearOf(x.values, gate.values, 33).map((g, i) => ACTIVATIONS[activation](g) * u[i]!)
      const y = linearOf(inner, down.values, 45)
      const { step } = begin(6)
      const input = backend.embed(step, x.weight, 1)
      const [hidden, scaled] = [1, 1].map((by) => backend.embed(step, x.weight, by))
      backend.mlp({ ...linears, activation }, hidden!, input, 0.7)
      backend.mlp({ ...linears, activation }, scaled!, input, 0.7, scale.weight)
      const s = linearOf(x.values, scale.values, 33).map((value) => 1 / (1 + Math.exp(-value)))
      const added = y.map((value, i) => x.values[i]! + 0.7 * value)
      checkClose(await backend.read(hidden!), added, TOLERANCE, activation)
      const sigmoids = y.map((value, i) => x.values[i]! + 0.7 * s[Math.floor(i / 33)]! * value)
      checkClose(await backend.read(scaled!), sigmoids, TOLERANCE, `${activation}, scaled`)
      backend.endStep(step)
    }
  }),
  decoderCase('gate: softmax over all, ties to the lower index', async ({ backend, draw, store, begin }) => {
    const [rows, k] = [7, 3]
    const x = await draw('F32', rows, 16)
    const drawn = createRandom(5).values(11 * 16)
    drawn.copyWithin(3 * 16, 8 * 16, 9 * 16) // experts 3 and 8 are the same
    drawn.copyWithin(10 * 16, 8 * 16, 9 * 16)
    const router = await store('BF16', [11, 16], drawn)
    for (const normalize of [true, false]) {
      const { step } = begin(rows)
      const gate = { router: router.weight, topK: k, normalize }
      const routing = await backend.readRouting(backend.gate(gate, backend.embed(step, x.weight, 1)))
      backend.endStep(step)
      const logits = linearOf(x.values, router.values, 16)
      for (let t = 0; t < rows; t++) {
        const probabilities = softmaxOf(logits.slice(t * 11, t * 11 + 11))
        const experts = topKOf(probabilities, k)
        const kept = experts.map((e) => probabilities[e]!)
        const sum = normalize ? kept.reduce((a, b) => a + b) : 1
        const row = <T>(values: Iterable<T>, size: number) => [...values].slice(t * size, t * size + size)
        checkClose(row(routing.probabilities, 11), probabilities, 1e-6, 'probabilities', absolute)
        checkSame(row(routing.experts, k), experts, `experts of row ${t}`)
        const weights = kept.map((value) => value / sum)
        checkClose(row(routing.weights, k), weights, 1e-6, 'weights', absolute)
      }
    }
  }),
  ...DTYPES.map((dtype, i) =>
    decoderCase(
      `experts of ${dtype}: the chosen ones only, in as many buffers as they need`,
      (made) => checkExperts(made, dtype),
      [undefined, 3000, 700][i],
    ),
  ),
  decoderCase(
    'the largest of each row: lowest of equal ones, subnormals, what is not finite',
    async (made) => {
      const { backend, store, random, begin } = made
      const columns = 601
      const rows = Array.from({ length: 7 }, () => [...random.values(columns)])
      rows[1]![9] = -Infinity
      rows[2]!.fill(-3).fill(7, 300)
      rows[3]!.fill(-0).fill(0, 500)
      rows[4]!.fill(-1e-42)[599] = -1e-43
      rows[5]![600] = Infinity
      rows[6]![257] = Number.NaN
      const expected = rows.map((row) =>
        row.every(Number.isFinite)
          ? row.reduce((best, value, i) => (value > row[best]! ? i : best), 0)
          : columns,
      )
      const table = await store('F32', [7, columns], Float32Array.from(rows.flat()))
      const { step } = begin(7)
      const x = { rows: 7, columns, buffer: table.weight.pieces[0]!.buffer }
      checkSame(await backend.readLargest(x), expected, 'largest')
      backend.endStep(step)
    },
  ),
  decoderCase('rows beyond the limit are refused by name, and the backend goes on', async (made) => {
    const { backend, draw, begin } = made
    const x = await draw('F32', 3, 200)
    const { step } = begin(3)
    let message = ''
    try {
      backend.createCache({ numLayers: 1, keyValueHeads: 2 ** 10, headDim: 128 }, 2 ** 20)
    } catch (error) {
      message = `${error}`
    }
    check(/exceeds what the GPU binds/.test(message), message)
    checkSame(await backend.read(backend.embed(step, x.weight, 1)), x.values, 'rows')
    backend.endStep(step)
  }),
]

interface AttentionCase {
  readonly heads: number
  readonly keyValueHeads: number
  readonly headDim: number
  readonly half: number
  readonly window: number | null
  readonly normed: boolean
  /** Positions of two sequences: computed at first, and all. */
  readonly lengths: readonly number[]
}

/** Two sequences in two steps: keys and values of the first step come from the cache in the second. */
async function checkAttention({ backend, draw, begin }: ReturnType<typeof bench>, shape: AttentionCase) {
  const { heads, keyValueHeads, headDim, half, lengths } = shape
  const [hidden, scale, eps] = [13, headDim ** -0.5, 1e-5]
  const of = async (n: number, k: number) => ({ w: await draw('BF16', n, k), b: await draw('F32', n) })
  const [q, k, v] = [
    await of(heads * headDim, hidden),
    await of(keyValueHeads * headDim, hidden),
    await of(keyValueHeads * headDim, hidden),
  ]
  const o = await draw('F32', hidden, heads * headDim)
  const norms = { q: await draw('F32', headDim), k: await draw('F32', headDim) }
  const linear = ({ w, b }: { w: Made; b: Made }) => ({ weight: w.weight, bias: b.weight })
  const layer = {
    ...{ layer: 1, q: linear(q), k: linear(k), v: linear(v), o: { weight: o.weight } },
    ...(shape.normed ? { qNorm: norms.q.weight, kNorm: norms.k.weight } : {}),
    ...{ numHeads: heads, keyValueHeads, headDim, eps, scale, window: shape.window },
  }
  const layout = { numLayers: 2, keyValueHeads, headDim }
  const sequences = lengths.map((length) => ({
    cache: backend.createCache(layout, length + 2),
    keys: [] as number[],
    values: [] as number[],
  }))
  for (const [turn, counts] of [lengths, [1, 2]].entries()) {
    const begins = turn === 0 ? [0, 0] : lengths
    const spans = sequences.map(({ cache }, i) => ({ cache, begin: begins[i]!, count: counts[i]! }))
    const rows = counts.reduce((a, b) => a + b)
    const x = await draw('F32', rows, hidden)
    const { step, cos, sin } = begin(rows, half, spans)
    const into = backend.embed(step, x.weight, 1)
    backend.attention(step, layer, into, backend.embed(step, x.weight, 1), 0.9)
    const actual = await backend.read(into)
    backend.endStep(step)

    const project = ({ w, b }: { w: Made; b: Made }) => linearOf(x.values, w.values, hidden, b.values)
    const rotated = (of: { w: Made; b: Made }, norm: Made, count: number) => {
      const projected = project(of)
      const normed = shape.normed ? normOf(projected, norm.values, eps) : projected
      return ropeOf(normed, cos, sin, count, headDim, half)
    }
    const queries = rotated(q, norms.q, heads)
    const [keys, values] = [rotated(k, norms.k, keyValueHeads), project(v)]
    let row = 0
    const seen = sequences.flatMap((sequence, i) => {
      const part = (from: readonly number[], width: number) =>
        from.slice(row * width, (row + counts[i]!) * width)
      sequence.keys.push(...part(keys, keyValueHeads * headDim))
      sequence.values.push(...part(values, keyValueHeads * headDim))
      const mine = part(queries, heads * headDim)
      row += counts[i]!
      return attentionOf(mine, sequence.keys, sequence.values, begins[i]!, { ...shape, scale })
    })
    const expected = linearOf(seen, o.values, heads * headDim).map((y, i) => x.values[i]! + 0.9 * y)
    checkClose(actual, expected, 5 * TOLERANCE, `step ${turn}`)
  }
  for (const { cache } of sequences) backend.freeCache(cache)
}

async function checkExperts({ backend, draw, begin }: ReturnType<typeof bench>, dtype: FloatDType) {
  const [rows, hidden, inner, k, numExperts] = [9, 11, 7, 2, 5]
  const x = await draw('F32', rows, hidden)
  const router = await draw('F32', numExperts, hidden)
  const made = []
  for (let e = 0; e < numExperts; e++)
    made.push({
      gate: await draw(dtype, inner, hidden),
      up: await draw(dtype, inner, hidden),
      down: await draw(dtype, hidden, inner),
    })
  const experts = made.map(({ gate, up, down }) => ({
    gate: { weight: gate.weight },
    up: { weight: up.weight },
    down: { weight: down.weight },
    activation: 'silu' as const,
  }))
  for (let again = 0; again < 2; again++) {
    const { step } = begin(rows)
    const [hiddenRows, input] = [backend.embed(step, x.weight, 1), backend.embed(step, x.weight, 1)]
    const routing = backend.gate({ router: router.weight, topK: k, normalize: true }, input)
    backend.experts(experts, routing, hiddenRows, input, 1.5)
    const [values, { experts: chosen, weights }] = [
      await backend.read(hiddenRows),
      await backend.readRouting(routing),
    ]
    backend.endStep(step)
    for (let t = 0; t < rows; t++) {
      const row = x.values.subarray(t * hidden, (t + 1) * hidden)
      const expected = Float64Array.from(row)
      for (let j = 0; j < k; j++) {
        const { gate, up, down } = made[chosen[t * k + j]!]!
        const u = linearOf(row, up.values, hidden)
        const acts = linearOf(row, gate.values, hidden).map((g, i) => ACTIVATIONS.silu(g) * u[i]!)
        for (const [i, y] of linearOf(acts, down.values, inner).entries())
          expected[i]! += 1.5 * weights[t * k + j]! * y
      }
      checkClose(values.subarray(t * hidden, (t + 1) * hidden), expected, TOLERANCE, `${dtype}, row ${t}`)
    }
  }
}
