import { ModelError } from '@polygraft/tensor'
import { dispatch } from '../dispatch.js'
import type { Dispatch, Gpu, GpuBuffer } from '../gpu.js'
import { type ExpertStack, stackExperts } from './_experts.js'
import { uploadWeight } from './_upload.js'
import { DTYPE_CODES } from './_weights.js'
import { attention } from './attention.js'
import {
  ACTIVATION_CODES,
  addScaled,
  combineExperts,
  copyWords,
  embedding,
  gatedActivation,
} from './elementwise.js'
import { gateTopK } from './gate.js'
import { largest } from './largest.js'
import { matmul } from './matmul.js'
import { expertMatvec, matvec } from './matvec.js'
import { rmsNorm } from './rms-norm.js'
import { rope } from './rope.js'
import type {
  GpuAttentionLayer,
  GpuCache,
  GpuGate,
  GpuGatedMlp,
  GpuLinear,
  GpuRouting,
  GpuRows,
  GpuStep,
  GpuStepInput,
  GpuWeight,
  GpuWeightSource,
} from './shapes.js'

/** Up to so many rows every weight is read once a row; above, by tiles. */
const FEW_ROWS = 4
/** Slots of one dispatch: below what a dimension of the grid may have. */
const SLOTS = 32768
const ALL_POSITIONS = 0xffffffff

type ExpertStacks = Readonly<Record<'gate' | 'up' | 'down', ExpertStack>>

export interface DecoderBackendOptions {
  /** Closing destroys the Gpu, too. */
  readonly ownsGpu?: boolean
}

/**
 * A decoder's operations on a GPU, as `Backend` of `@polygraft/model` defines them. Everything is queued, and sent to the device by the
 * next read; weights of matrices stay as they are stored. The backend owns what it makes, and the Gpu only where it is told so.
 * @throws ModelError (its operations) 'gpu-limit' for rows or a cache beyond `gpu.maxBindingBytes`, 'device-lost'; reads, what
 *   `Gpu.read` throws.
 */
export function createDecoderBackend(gpu: Gpu, { ownsGpu = false }: DecoderBackendOptions = {}) {
  const uploaded = new Set<GpuWeight>()
  const stacks = new WeakMap<readonly GpuGatedMlp[], ExpertStacks>()
  const caches = new Set<GpuCache>()
  const none = gpu.createBuffer(4)
  let queue: Dispatch[] = []
  let step: GpuStep | undefined
  let temporaries: GpuBuffer[] = []

  const flush = () => {
    const dispatches = queue
    queue = []
    gpu.run(dispatches)
  }
  const temporary = (bytes: number) => {
    const buffer = gpu.createBuffer(bytes)
    temporaries.push(buffer)
    return buffer
  }
  const rowsOf = (rows: number, columns: number): GpuRows => ({
    rows,
    columns,
    buffer: temporary(rows * columns * 4),
  })
  const given = (values: Uint32Array | Float32Array) => {
    const buffer = temporary(values.byteLength)
    gpu.write(buffer, values.slice())
    return buffer
  }

  /** y (+)= factor * (x W^T + b) */
  function project({ weight, bias }: GpuLinear, x: GpuRows, y: GpuRows, factor: number, adds = false): void {
    const kernel = x.rows <= FEW_ROWS ? matvec : matmul
    for (const { buffer, begin, end, from } of weight.pieces)
      queue.push(
        dispatch(
          kernel,
          { x: x.buffer, w: buffer, b: bias ? bias.pieces[0]!.buffer : none, y: y.buffer },
          {
            rows: x.rows,
            depth: x.columns,
            pieceRows: end - begin,
            columns: y.columns,
            to: begin,
            offset: from,
            biased: bias ? 1 : 0,
            adds: adds ? 1 : 0,
            factor,
          },
          { DTYPE: DTYPE_CODES[weight.dtype]! },
        ),
      )
  }

  function linear(of: GpuLinear, x: GpuRows, factor: number): GpuRows {
    const y = rowsOf(x.rows, of.weight.shape[0]!)
    project(of, x, y, factor)
    return y
  }

  /** RMSNorm of `rows` rows of `columns` each, which may be heads. */
  function norm({ buffer: x, ...shape }: GpuRows, weight: GpuWeight, eps: number): GpuRows {
    const columns = weight.shape[0]!
    const y = rowsOf(shape.rows, shape.columns)
    const rows = (shape.rows * shape.columns) / columns
    queue.push(dispatch(rmsNorm, { x, w: weight.pieces[0]!.buffer, y: y.buffer }, { rows, columns, eps }))
    return y
  }

  /** Queries or keys: projected, normed by head, rotated. */
  function heads(of: GpuLinear, x: GpuRows, norms: GpuWeight | undefined, layer: GpuAttentionLayer): GpuRows {
    const { cos, sin, half } = step!
    const projected = linear(of, x, 1)
    const y = norms ? norm(projected, norms, layer.eps) : projected
    const count = y.columns / layer.headDim
    if (half > 0)
      queue.push(
        dispatch(
          rope,
          { cos, sin, x: y.buffer },
          { pairs: y.rows * count * half, heads: count, headDim: layer.headDim, half },
        ),
      )
    return y
  }

  const copy = (from: GpuBuffer, begin: number, to: GpuBuffer, at: number, count: number) =>
    queue.push(dispatch(copyWords, { x: from, y: to }, { count, begin, at }))

  function activate(gate: GpuRows, up: GpuRows, activation: GpuGatedMlp['activation']): void {
    queue.push(
      dispatch(
        gatedActivation,
        { up: up.buffer, gate: gate.buffer },
        { count: gate.rows * gate.columns },
        { ACTIVATION: ACTIVATION_CODES[activation] },
      ),
    )
  }

  function stacksOf(experts: readonly GpuGatedMlp[]): ExpertStacks {
    const found = stacks.get(experts)
    if (found) return found
    flush() // before the weights move
    const made = {
      gate: stackExperts(gpu, experts, 'gate'),
      up: stackExperts(gpu, experts, 'up'),
      down: stackExperts(gpu, experts, 'down'),
    }
    stacks.set(experts, made)
    return made
  }

  /** Each slot's row through its expert's matrix: [T * k, N]. */
  function byExpert(stack: ExpertStack, x: GpuRows, routing: GpuRouting, perRow: number): GpuRows {
    const slots = routing.rows * routing.topK
    const y = rowsOf(slots, stack.rows)
    const { depth, rows: columns, stride } = stack
    for (const { buffer, begin, end } of stack.pieces)
      for (let firstSlot = 0; firstSlot < slots; firstSlot += SLOTS)
        queue.push(
          dispatch(
            expertMatvec,
            { x: x.buffer, w: buffer, experts: routing.experts, y: y.buffer },
            {
              ...{ slots: Math.min(SLOTS, slots - firstSlot), firstSlot, perRow, depth, columns, stride },
              ...{ firstExpert: begin, pieceExperts: end - begin },
            },
            { DTYPE: DTYPE_CODES[stack.dtype]! },
          ),
        )
    return y
  }

  async function read(buffer: GpuBuffer, bytes: number): Promise<ArrayBuffer> {
    flush()
    return (await gpu.read(buffer, 0, bytes)).buffer
  }

  return {
    name: `webgpu (${gpu.name})`,

    async upload(source: GpuWeightSource): Promise<GpuWeight> {
      const weight = await uploadWeight(gpu, source)
      uploaded.add(weight)
      return weight
    },

    createCache(
      layout: { readonly numLayers: number; readonly keyValueHeads: number; readonly headDim: number },
      capacity: number,
    ): GpuCache {
      const width = layout.keyValueHeads * layout.headDim
      const make = () => gpu.createBuffer(capacity * width * 4)
      const layers = Array.from({ length: layout.numLayers }, () => ({ keys: make(), values: make() }))
      const cache = { capacity, width, layers }
      caches.add(cache)
      return cache
    },

    copyCache(from: GpuCache, to: GpuCache, count: number): void {
      for (const [i, { keys, values }] of from.layers.entries()) {
        copy(keys, 0, to.layers[i]!.keys, 0, count * from.width)
        copy(values, 0, to.layers[i]!.values, 0, count * from.width)
      }
    },

    freeCache(cache: GpuCache): void {
      flush()
      freeCacheBuffers(cache)
      caches.delete(cache)
    },

    beginStep({ tokens, spans, cos, sin }: GpuStepInput): GpuStep {
      if (step)
        throw new ModelError({ code: 'step-open', message: 'A step is open already', next: 'End it first.' })
      const half = tokens.length === 0 ? 0 : cos.length / tokens.length
      const uploads = { tokens: given(tokens), cos: given(cos), sin: given(sin) }
      step = { rows: tokens.length, spans, half, ...uploads }
      return step
    },

    endStep(_step: GpuStep): void {
      try {
        flush()
      } finally {
        for (const buffer of temporaries) buffer.destroy()
        temporaries = []
        step = undefined
      }
    },

    embed({ rows, tokens }: GpuStep, table: GpuWeight, scale: number): GpuRows {
      const columns = table.shape[1]!
      const y = rowsOf(rows, columns)
      for (const { buffer, begin, end, from } of table.pieces)
        queue.push(
          dispatch(
            embedding,
            { tokens, w: buffer, y: y.buffer },
            {
              count: rows * columns,
              columns,
              firstToken: begin,
              pieceRows: end - begin,
              offset: from,
              scale,
            },
            { DTYPE: DTYPE_CODES[table.dtype]! },
          ),
        )
      return y
    },

    norm,
    linear,

    attention(at: GpuStep, layer: GpuAttentionLayer, hidden: GpuRows, x: GpuRows, factor: number): void {
      const q = heads(layer.q, x, layer.qNorm, layer)
      const k = heads(layer.k, x, layer.kNorm, layer)
      const v = linear(layer.v, x, 1)
      const y = rowsOf(x.rows, q.columns)
      let firstRow = 0
      for (const { cache, begin, count } of at.spans) {
        const { keys, values } = cache.layers[layer.layer]!
        const [from, to, size] = [firstRow * k.columns, begin * k.columns, count * k.columns]
        copy(k.buffer, from, keys, to, size)
        copy(v.buffer, from, values, to, size)
        queue.push(
          dispatch(
            attention,
            { q: q.buffer, keys, values, y: y.buffer },
            {
              ...{ rows: count, firstRow, begin, window: layer.window ?? ALL_POSITIONS },
              ...{ heads: layer.numHeads, keyValueHeads: layer.keyValueHeads, scale: layer.scale },
            },
            { D: layer.headDim },
          ),
        )
        firstRow += count
      }
      project(layer.o, y, hidden, factor, true)
    },

    mlp(mlp: GpuGatedMlp, hidden: GpuRows, x: GpuRows, factor: number, scale?: GpuWeight): void {
      const gate = linear(mlp.gate, x, 1)
      activate(gate, linear(mlp.up, x, 1), mlp.activation)
      if (!scale) {
        project(mlp.down, gate, hidden, factor, true)
        return
      }
      const s = linear({ weight: scale }, x, 1)
      const y = linear(mlp.down, gate, 1)
      queue.push(
        dispatch(
          addScaled,
          { s: s.buffer, y: y.buffer, hidden: hidden.buffer },
          { count: y.rows * y.columns, columns: y.columns, factor },
        ),
      )
    },

    gate({ router, topK, normalize }: GpuGate, x: GpuRows): GpuRouting {
      const logits = linear({ weight: router }, x, 1)
      const { rows, columns: numExperts } = logits
      const routing = {
        ...{ rows, numExperts, topK },
        probabilities: temporary(rows * numExperts * 4),
        experts: temporary(rows * topK * 4),
        weights: temporary(rows * topK * 4),
      }
      const { probabilities, experts, weights } = routing
      queue.push(
        dispatch(
          gateTopK,
          { logits: logits.buffer, probabilities, experts, weights },
          { rows, numExperts, topK, normalize: normalize ? 1 : 0 },
        ),
      )
      return routing
    },

    experts(
      experts: readonly GpuGatedMlp[],
      routing: GpuRouting,
      hidden: GpuRows,
      x: GpuRows,
      factor: number,
    ): void {
      const { gate, up, down } = stacksOf(experts)
      const g = byExpert(gate, x, routing, routing.topK)
      activate(g, byExpert(up, x, routing, routing.topK), experts[0]!.activation)
      const y = byExpert(down, g, routing, 1)
      queue.push(
        dispatch(
          combineExperts,
          { weights: routing.weights, y: y.buffer, hidden: hidden.buffer },
          { count: x.rows * y.columns, columns: y.columns, topK: routing.topK, factor },
        ),
      )
    },

    gather(x: GpuRows, indices: readonly number[]): GpuRows {
      const y = rowsOf(indices.length, x.columns)
      for (const [i, index] of indices.entries())
        copy(x.buffer, index * x.columns, y.buffer, i * x.columns, x.columns)
      return y
    },

    async read({ buffer, rows, columns }: GpuRows): Promise<Float32Array> {
      return new Float32Array(await read(buffer, rows * columns * 4))
    },

    async readLargest({ buffer, rows, columns }: GpuRows): Promise<Uint32Array> {
      const y = temporary(rows * 4)
      queue.push(dispatch(largest, { x: buffer, y }, { rows, columns }))
      return new Uint32Array(await read(y, rows * 4))
    },

    async readRouting({ rows, numExperts, topK, probabilities, experts, weights }: GpuRouting) {
      const [p, e, w] = await Promise.all([
        read(probabilities, rows * numExperts * 4),
        read(experts, rows * topK * 4),
        read(weights, rows * topK * 4),
      ])
      return { probabilities: new Float32Array(p), experts: new Uint32Array(e), weights: new Float32Array(w) }
    },

    async close(): Promise<void> {
      queue = []
      for (const cache of caches) freeCacheBuffers(cache)
      for (const weight of uploaded) for (const { buffer } of weight.pieces) buffer.destroy()
      for (const buffer of [none, ...temporaries]) buffer.destroy()
      temporaries = []
      caches.clear()
      uploaded.clear()
      if (ownsGpu) gpu.destroy()
    },
  }
}

function freeCacheBuffers({ layers }: GpuCache): void {
  for (const { keys, values } of layers) {
    keys.destroy()
    values.destroy()
  }
}
