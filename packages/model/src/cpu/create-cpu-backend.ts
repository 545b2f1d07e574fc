import { createTeam, type Team } from '@polygraft/engine'
import {
  ACTIVATIONS,
  cacheBytes,
  encodeInstruction,
  type Operands,
  type OperationName,
  scoreBytes,
} from '@polygraft/kernels'
import { ModelError } from '@polygraft/tensor'
import type {
  AttentionLayer,
  Backend,
  Cache,
  CacheLayout,
  GatedMlp,
  Linear,
  Routing,
  Rows,
  Span,
  Step,
  Weight,
} from '../backend.js'
import { createHeap, type Heap } from './_heap.js'
import { type CpuWeight, uploadWeight } from './_upload.js'

export interface CpuOptions {
  /** Threads that compute, the calling one included (1). Results do not depend on it. */
  readonly threads?: number
}

interface CpuRows extends Rows {
  readonly address: number
}
interface CpuRouting extends Routing {
  readonly probabilities: number
  readonly chosen: number
  readonly weights: number
}
interface CpuCache extends Cache {
  readonly address: number
  readonly layout: CacheLayout
}
interface CpuStep extends Step {
  readonly tokens: number
  readonly cos: number
  readonly sin: number
  readonly spans: readonly Span[]
  readonly rotated: number
}

/** The state that all operations share. */
interface Device {
  readonly team: Team
  readonly heap: Heap
  readonly queue: number[][]
  /** Addresses that the open step's end frees. */
  readonly temporaries: number[]
  /** Tables of expert addresses, by the array of experts that they were made for. */
  readonly tables: WeakMap<readonly GatedMlp[], Tables>
}
interface Tables {
  readonly gate: number
  readonly up: number
  readonly down: number
}

const cpu = <T>(handle: object) => handle as T

/**
 * The decoder's operations on the CPU: WebAssembly SIMD in one memory of at most 4 GiB, which threads share. Weights stay as they are
 * stored (BF16, F16, F32); all arithmetic is F32. No bit of a result depends on the number of threads, or on the other rows of a step.
 */
export async function createCpuBackend({ threads = 1 }: CpuOptions = {}): Promise<Backend> {
  const team = await createTeam(threads)
  const heap = createHeap(team.memory, team.begin)
  const device: Device = { team, heap, queue: [], temporaries: [], tables: new WeakMap() }
  const { memory } = team

  function flush(): void {
    const instructions = device.queue.splice(0)
    if (instructions.length > 0) team.run(instructions)
  }

  return {
    name: 'cpu',
    upload: (source) => uploadWeight(memory, heap, source),
    createCache(layout, capacity) {
      const positions = Math.ceil(capacity / 8) * 8
      const size = layout.numLayers * cacheBytes(layout.keyValueHeads, layout.headDim, positions)
      const address = heap.allocate(size)
      // What is not computed yet is multiplied by 0, so it must be finite.
      new Uint8Array(memory.buffer, address, size).fill(0)
      const cache: CpuCache = { capacity: positions, address, layout }
      return cache
    },
    copyCache(from, to, count) {
      const [source, target] = [cpu<CpuCache>(from), cpu<CpuCache>(to)]
      const { keyValueHeads, headDim, numLayers } = source.layout
      for (let layer = 0; layer < numLayers; layer++)
        enqueue(device, 'copyCache', {
          from: layerAddress(source, layer),
          fromCapacity: source.capacity,
          to: layerAddress(target, layer),
          toCapacity: target.capacity,
          ...{ keyValueHeads, headDim, count },
        })
      flush()
    },
    freeCache(cache) {
      heap.free(cpu<CpuCache>(cache).address)
    },
    beginStep({ tokens, spans, cos, sin }) {
      const put = (values: Uint32Array | Float32Array) => {
        const address = temporary(device, values.length * 4)
        const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
        new Uint8Array(memory.buffer).set(bytes, address)
        return address
      }
      const rotated = tokens.length === 0 ? 0 : (cos.length / tokens.length) * 2
      const place = { tokens: put(tokens), cos: put(cos), sin: put(sin) }
      const step: CpuStep = { rows: tokens.length, spans, rotated, ...place }
      return step
    },
    endStep() {
      flush()
      for (const address of device.temporaries.splice(0)) heap.free(address)
    },
    embed(step, table, scale) {
      const { address, kind, shape } = cpu<CpuWeight>(table)
      const [size, columns] = shape as [number, number]
      const out = newRows(device, step.rows, columns)
      const { tokens } = cpu<CpuStep>(step)
      const operands = { table: address, dtype: kind, size, tokens, out: out.address }
      enqueue(device, 'embed', { ...operands, rows: step.rows, columns, scale })
      return out
    },
    norm(x, weight, eps) {
      const out = newRows(device, x.rows, x.columns)
      const places = { x: addressOf(x), weight: cpu<CpuWeight>(weight).address, out: out.address }
      enqueue(device, 'norm', { ...places, rows: x.rows, columns: x.columns, eps })
      return out
    },
    attention: (step, layer, hidden, x, factor) =>
      attention(device, cpu<CpuStep>(step), layer, hidden, x, factor),
    mlp(mlp, hidden, x, factor, scale) {
      const inner = gatedRows(device, mlp, x)
      if (!scale) return addLinear(device, mlp.down, inner, hidden, factor)
      const y = linear(device, mlp.down, inner)
      const logits = linear(device, { weight: scale }, x)
      const places = { logits: logits.address, y: y.address, out: addressOf(hidden) }
      enqueue(device, 'addGated', { ...places, rows: x.rows, columns: hidden.columns, factor })
    },
    gate({ router, topK, normalize }, x) {
      const logits = linear(device, { weight: router }, x)
      const numExperts = logits.columns
      const chosen = temporary(device, x.rows * topK * 4)
      const weights = temporary(device, x.rows * topK * 4)
      const places = { logits: logits.address, chosen, weights }
      enqueue(device, 'gate', {
        ...places,
        rows: x.rows,
        experts: numExperts,
        topK,
        normalize: Number(normalize),
      })
      const routing: CpuRouting = {
        rows: x.rows,
        numExperts,
        topK,
        probabilities: logits.address,
        chosen,
        weights,
      }
      return routing
    },
    experts: (experts, routing, hidden, x, factor) =>
      mixture(device, experts, cpu<CpuRouting>(routing), hidden, x, factor),
    gather(x, indices) {
      const address = temporary(device, indices.length * 4)
      new Uint32Array(memory.buffer, address, indices.length).set(indices)
      return gatherRows(device, x, address, indices.length)
    },
    linear(layer, x, factor) {
      const out = linear(device, layer, x)
      if (factor !== 1) enqueue(device, 'scale', { x: out.address, count: out.rows * out.columns, factor })
      return out
    },
    async read(x) {
      flush()
      return new Float32Array(memory.buffer, addressOf(x), x.rows * x.columns).slice()
    },
    async readRouting(routing) {
      flush()
      const { rows, numExperts, topK, probabilities, chosen, weights } = cpu<CpuRouting>(routing)
      return {
        probabilities: new Float32Array(memory.buffer, probabilities, rows * numExperts).slice(),
        experts: new Uint32Array(memory.buffer, chosen, rows * topK).slice(),
        weights: new Float32Array(memory.buffer, weights, rows * topK).slice(),
      }
    },
    close: () => team.close(),
  }
}

function enqueue<Name extends OperationName>({ queue }: Device, name: Name, operands: Operands<Name>): void {
  queue.push(encodeInstruction(name, operands))
}

function temporary({ heap, temporaries }: Device, bytes: number): number {
  const address = heap.allocate(bytes)
  temporaries.push(address)
  return address
}

function newRows(device: Device, rows: number, columns: number): CpuRows {
  return { rows, columns, address: temporary(device, rows * columns * 4) }
}

const addressOf = (x: Rows) => cpu<CpuRows>(x).address

function layerAddress({ address, capacity, layout }: CpuCache, layer: number): number {
  return address + layer * cacheBytes(layout.keyValueHeads, layout.headDim, capacity)
}

/** x W^T + b. */
function linear(device: Device, layer: Linear, x: Rows): CpuRows {
  const out = newRows(device, x.rows, layer.weight.shape[0]!)
  multiply(device, layer, x, out, false)
  return out
}

function multiply(device: Device, { weight, bias }: Linear, x: Rows, out: Rows, adds: boolean): void {
  const { address, kind } = cpu<CpuWeight>(weight)
  const places = { x: addressOf(x), weight: address, out: addressOf(out), bias: addressOfOptional(bias) }
  const sizes = { rows: x.rows, n: out.columns, k: x.columns }
  enqueue(device, 'linear', { ...places, dtype: kind, ...sizes, adds: Number(adds) })
}

const addressOfOptional = (weight: Weight | undefined) => (weight ? cpu<CpuWeight>(weight).address : 0)

/** hidden += factor * (x W^T + b). */
function addLinear(device: Device, layer: Linear, x: Rows, hidden: Rows, factor: number): void {
  if (factor === 1) {
    multiply(device, layer, x, hidden, true)
    return
  }
  const y = linear(device, layer, x)
  enqueue(device, 'addScaled', { x: y.address, out: addressOf(hidden), count: y.rows * y.columns, factor })
}

/** act(x W_gate^T) * x W_up^T. */
function gatedRows(device: Device, { gate, up, activation }: GatedMlp, x: Rows): CpuRows {
  const left = linear(device, gate, x)
  const right = linear(device, up, x)
  const kind = ACTIVATIONS.indexOf(activation)
  const count = left.rows * left.columns
  enqueue(device, 'gated', { activation: kind, x: left.address, y: right.address, count })
  return left
}

function attention(
  device: Device,
  step: CpuStep,
  layer: AttentionLayer,
  hidden: Rows,
  x: Rows,
  factor: number,
): void {
  const [q, k, v] = [layer.q, layer.k, layer.v].map((each) => linear(device, each, x)) as [
    CpuRows,
    CpuRows,
    CpuRows,
  ]
  const out = newRows(device, x.rows, q.columns)
  const { numHeads: heads, keyValueHeads, headDim, eps, scale } = layer
  const longest = Math.max(...step.spans.map(({ begin, count }) => begin + count))
  const scores = temporary(device, device.team.threads * scoreBytes(longest, heads, keyValueHeads))
  const norms = { qNorm: addressOfOptional(layer.qNorm), kNorm: addressOfOptional(layer.kNorm), eps }
  const window = layer.window ?? 0
  let row = 0
  for (const { cache, begin, count } of step.spans) {
    const { capacity } = cache
    const place = {
      cache: layerAddress(cpu<CpuCache>(cache), layer.layer),
      capacity,
      heads,
      keyValueHeads,
      headDim,
    }
    const span = { ...place, row, count, begin }
    const { cos, sin, rotated } = step
    enqueue(device, 'rotateAndStore', {
      ...{ q: q.address, k: k.address, v: v.address, ...norms, cos, sin, rotated },
      ...span,
    })
    enqueue(device, 'attend', { q: q.address, out: out.address, ...span, scale, window, scores })
    row += count
  }
  addLinear(device, layer.o, out, hidden, factor)
}

function gatherRows(device: Device, x: Rows, indices: number, count: number): CpuRows {
  const out = newRows(device, count, x.columns)
  enqueue(device, 'gather', { x: addressOf(x), indices, out: out.address, count, columns: x.columns })
  return out
}

function mixture(
  device: Device,
  experts: readonly GatedMlp[],
  routing: CpuRouting,
  hidden: Rows,
  x: Rows,
  factor: number,
): void {
  const { rows, topK, chosen, weights, numExperts } = routing
  const pairs = rows * topK
  const words = (count: number) => temporary(device, count * 4)
  const [offsets, sources, places] = [words(numExperts + 1), words(pairs), words(pairs)]
  enqueue(device, 'group', { chosen, offsets, sources, places, rows, experts: numExperts, topK })
  const grouped = gatherRows(device, x, sources, pairs)
  const tables = tablesOf(device, experts)
  const width = experts[0]!.gate.weight.shape[0]!
  const through = (table: number, from: Rows, n: number) => {
    const out = newRows(device, pairs, n)
    const place = { x: addressOf(from), table, offsets, out: out.address }
    enqueue(device, 'linearOfExperts', { ...place, experts: numExperts, n, k: from.columns })
    return out
  }
  const left = through(tables.gate, grouped, width)
  const right = through(tables.up, grouped, width)
  const activation = ACTIVATIONS.indexOf(experts[0]!.activation)
  enqueue(device, 'gated', { activation, x: left.address, y: right.address, count: pairs * width })
  const y = through(tables.down, left, hidden.columns)
  const sum = { y: y.address, places, weights, out: addressOf(hidden) }
  enqueue(device, 'combine', { ...sum, rows, columns: hidden.columns, topK, factor })
}

/** For each of the three matrices, the experts' addresses and kinds as pairs of F64. */
function tablesOf({ heap, team, tables }: Device, experts: readonly GatedMlp[]): Tables {
  const known = tables.get(experts)
  if (known) return known
  const table = (part: 'gate' | 'up' | 'down') => {
    const entries = experts.flatMap((expert) => {
      if (expert[part].bias)
        throw new ModelError({ code: 'bad-weight', message: 'Experts have no biases here' })
      const { address, kind } = cpu<CpuWeight>(expert[part].weight)
      return [address, kind]
    })
    const address = heap.allocate(entries.length * 8)
    new Float64Array(team.memory.buffer, address, entries.length).set(entries)
    return address
  }
  const made = { gate: table('gate'), up: table('up'), down: table('down') }
  tables.set(experts, made)
  return made
}
