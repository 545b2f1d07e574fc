import {
  type Dimensions,
  dimensionsOf,
  type Family,
  familyOf,
  field,
  tensorProblems,
} from '@polygraft/architectures'
import { type Checkpoint, type JsonObject, ModelError, type Problem, throwIfAny } from '@polygraft/tensor'
import { bindNetwork, epsOf, type Layer, type Network, type OnTensor } from './_bind.js'
import type { Backend, Cache, RoutingValues, Rows, Step, StepInput } from './backend.js'
import { createCpuBackend } from './cpu/create-cpu-backend.js'
import { createRotation, type Rotation } from './rope.js'
import { sampleToken } from './sample-token.js'

/** A model that computes: a checkpoint's weights on a device, and the decoder over them. */
export interface Model {
  readonly family: Family
  readonly config: JsonObject
  readonly dimensions: Dimensions
  /** The longest sequence that the model is made for. Unit: tokens. */
  readonly maxPositions: number
  readonly backend: Backend
  /** Keys and values for a sequence of up to `capacity` tokens. Free it with `backend.freeCache`. */
  createCache(capacity: number): Cache
  /**
   * Computes the spans' tokens in one step, and takes their keys and values into the caches.
   * @returns logits [R, V] of the rows that the spans want, in their order.
   * @throws ModelError "bad-token" for an id outside of the vocabulary, "too-long" for a position beyond `maxPositions` or the cache,
   * "not-finite" where logits are NaN or infinite.
   */
  forward(spans: readonly TokenSpan[], observer?: Observer): Promise<Float32Array>
  /**
   * As `forward`, but the most probable token of each wanted row, of equal ones the lower id: only the ids leave a device that finds them.
   * @throws ModelError as `forward`.
   */
  forwardGreedy(spans: readonly TokenSpan[], observer?: Observer): Promise<Uint32Array>
  /** Frees everything, the backend that it made for itself included. */
  close(): Promise<void>
}

/** Tokens of one sequence that a step computes, at positions from `begin` on; what was before is in the cache. */
export interface TokenSpan {
  readonly cache: Cache
  readonly begin: number
  readonly tokens: readonly number[]
  /** Whose logits are wanted: those of the last token (the default), of all, or none. */
  readonly wanted?: 'last' | 'all' | 'none'
  /** How long the sequence will be once all of its prompt is computed; only dynamic RoPE depends on it. The tokens' end by default. */
  readonly length?: number
}

/** What a caller may watch. The rows are the step's tokens in order; layers come in order, too. */
export interface Observer {
  /** The residual stream as it enters a layer, [T, H]: the embedding for the first one, what transformers calls its hidden state. */
  layerInput?(layer: number, values: Float32Array): void
  /** The choices of a mixture layer. */
  routing?(layer: number, values: RoutingValues): void
  /** What a layer's feed-forward block sees, the router included: the norm after attention, [T, H]. */
  feedForwardInput?(layer: number, values: Float32Array): void
}

export interface ModelOptions {
  /** The device; a CPU backend of one thread by default. */
  readonly backend?: Backend
  /** Told of every weight that has been taken onto the device. */
  readonly onTensor?: OnTensor
}

/**
 * Opens a checkpoint as a model: evaluates its tensors onto the device. Any checkpoint does, one that was never written included.
 * @throws ModelError "unsupported-family", "bad-config", "unsupported-rope", "unsupported-activation", "missing-tensor", "shape-mismatch",
 * "not-float", "out-of-memory".
 */
export async function openModel(checkpoint: Checkpoint, options: ModelOptions = {}): Promise<Model> {
  const { config } = checkpoint
  const family = familyOf(config)
  const rotation = createRotation(family, config)
  const dimensions = dimensionsOf(family, config)
  const problems = tensorProblems(family, config, checkpoint.tensors)
  throwIfAny(problems.filter(({ code }) => code !== 'unexpected-tensor'))
  const backend = options.backend ?? (await createCpuBackend())
  const close = async () => {
    if (!options.backend) await backend.close()
  }
  try {
    const network = await bindNetwork(family, checkpoint, backend, options.onTensor)
    const decoder = { family, config, dimensions, rotation, network, backend }
    return {
      ...{ family, config, dimensions, backend, close },
      maxPositions: rotation.maxPositions,
      createCache: (capacity) =>
        backend.createCache(
          {
            numLayers: dimensions.numLayers,
            keyValueHeads: dimensions.numKeyValueHeads,
            headDim: dimensions.headDim,
          },
          capacity,
        ),
      forward: (spans, observer = {}) => forward(decoder, spans, observer),
      forwardGreedy: (spans, observer = {}) => forwardGreedy(decoder, spans, observer),
    }
  } catch (error) {
    await close()
    throw error
  }
}

interface Decoder {
  readonly family: Family
  readonly config: JsonObject
  readonly dimensions: Dimensions
  readonly rotation: Rotation
  readonly network: Network
  readonly backend: Backend
}

async function forward(
  decoder: Decoder,
  spans: readonly TokenSpan[],
  observer: Observer,
): Promise<Float32Array> {
  const logits = await runStep(decoder, spans, observer, (rows) => decoder.backend.read(rows))
  if (!logits) return new Float32Array(0)
  checkLogits(logits, spans)
  return logits
}

async function forwardGreedy(
  decoder: Decoder,
  spans: readonly TokenSpan[],
  observer: Observer,
): Promise<Uint32Array> {
  const { backend, dimensions } = decoder
  const { vocabularySize } = dimensions
  if (backend.readLargest) {
    const tokens = await runStep(decoder, spans, observer, (rows) => backend.readLargest!(rows))
    const at = tokens?.indexOf(vocabularySize) ?? -1
    if (at >= 0) throw notFinite(`NaN or infinity in row ${at} of the step's logits`, spans)
    return tokens ?? new Uint32Array(0)
  }
  const logits = await forward(decoder, spans, observer)
  return Uint32Array.from({ length: logits.length / vocabularySize }, (_, row) =>
    sampleToken(logits.subarray(row * vocabularySize, (row + 1) * vocabularySize), {}, 0),
  )
}

/** Runs a step, and reads of the wanted rows' logits what `readOut` does; undefined where none are wanted. */
async function runStep<T>(
  decoder: Decoder,
  spans: readonly TokenSpan[],
  observer: Observer,
  readOut: (logits: Rows) => Promise<T>,
): Promise<T | undefined> {
  const { backend, network } = decoder
  checkSpans(decoder, spans)
  const step = backend.beginStep(stepInput(decoder, spans))
  try {
    const hidden = backend.embed(step, network.embedding, multiplier(decoder, 'embedding_multiplier'))
    const watched = network.layers.flatMap((layer, i) => runLayer(decoder, step, layer, hidden, i, observer))
    const rows = wantedRows(spans)
    const result = rows.length === 0 ? undefined : await readOut(logitsOf(decoder, hidden, rows))
    await Promise.all(watched)
    return result
  } finally {
    backend.endStep(step)
  }
}

function logitsOf(decoder: Decoder, hidden: Rows, rows: readonly number[]): Rows {
  const { backend, network, family, config } = decoder
  const last = rows.length === hidden.rows ? hidden : backend.gather(hidden, rows)
  const normed = backend.norm(last, network.finalNorm, epsOf(family, config))
  const factor = 1 / multiplier(decoder, 'logits_scaling')
  return backend.linear({ weight: network.head }, normed, factor)
}

/** Queues one layer; the reads that an observer asked for. */
function runLayer(
  decoder: Decoder,
  step: Step,
  layer: Layer,
  hidden: Rows,
  index: number,
  observer: Observer,
): Promise<void>[] {
  const { backend, family, config } = decoder
  const eps = epsOf(family, config)
  const factor = multiplier(decoder, 'residual_multiplier')
  const watched: Promise<void>[] = []
  // A read takes the values as they are now: what is queued later does not change them.
  if (observer.layerInput)
    watched.push(backend.read(hidden).then((values) => observer.layerInput?.(index, values)))
  const before = backend.norm(hidden, layer.attentionNorm, eps)
  backend.attention(step, layer.attention, hidden, before, factor)
  const x = backend.norm(hidden, layer.ffnNorm, eps)
  if (observer.feedForwardInput)
    watched.push(backend.read(x).then((values) => observer.feedForwardInput?.(index, values)))
  if (layer.mlp) backend.mlp(layer.mlp, hidden, x, factor)
  if (!layer.mixture) return watched
  const { gate, experts, shared } = layer.mixture
  const routing = backend.gate(gate, x)
  if (observer.routing)
    watched.push(backend.readRouting(routing).then((values) => observer.routing?.(index, values)))
  backend.experts(experts, routing, hidden, x, factor)
  if (shared) backend.mlp(shared.mlp, hidden, x, factor, shared.scale)
  return watched
}

/** A multiplier that only some families have; 1 for the others. */
function multiplier({ family, config }: Decoder, name: string): number {
  return Object.hasOwn(family.defaults, name) ? Number(field(family, config, name)) : 1
}

function stepInput({ rotation }: Decoder, spans: readonly TokenSpan[]): StepInput {
  const tokens = Uint32Array.from(spans.flatMap((span) => span.tokens))
  const half = rotation.dimensions / 2
  const [cos, sin] = [new Float32Array(tokens.length * half), new Float32Array(tokens.length * half)]
  let row = 0
  for (const { begin, tokens: own, length = begin + own.length } of spans) {
    rotation.write(begin, own.length, length, cos, sin, row * half)
    row += own.length
  }
  return {
    tokens,
    cos,
    sin,
    spans: spans.map((s) => ({ cache: s.cache, begin: s.begin, count: s.tokens.length })),
  }
}

function wantedRows(spans: readonly TokenSpan[]): number[] {
  let row = 0
  return spans.flatMap(({ tokens, wanted = 'last' }) => {
    const begin = row
    row += tokens.length
    if (wanted === 'none') return []
    return wanted === 'last' ? [row - 1] : tokens.map((_, i) => begin + i)
  })
}

function checkSpans({ rotation, dimensions }: Decoder, spans: readonly TokenSpan[]): void {
  throwIfAny(
    spans.flatMap(({ begin, tokens, cache }, i): Problem[] => {
      const end = begin + tokens.length
      const limit = Math.min(rotation.maxPositions, cache.capacity)
      const wrong = tokens.find((id) => !(Number.isInteger(id) && id >= 0 && id < dimensions.vocabularySize))
      return [
        ...(end > limit ? [tooLong(i, limit, end)] : []),
        ...(wrong === undefined ? [] : [badToken(i, dimensions.vocabularySize, wrong)]),
      ]
    }),
  )
}

function tooLong(sequence: number, limit: number, received: number): Problem {
  return {
    code: 'too-long',
    message: `Sequence ${sequence} is longer than the model's context or its cache`,
    expected: `at most ${limit} tokens`,
    received: `${received} tokens`,
    next: 'Shorten the prompt or ask for fewer new tokens.',
  }
}

function badToken(sequence: number, size: number, received: number): Problem {
  return {
    code: 'bad-token',
    message: `Sequence ${sequence} has a token that the model does not know`,
    expected: `an id from 0 to ${size - 1}`,
    received: `${received}`,
    next: 'Use the tokenizer that belongs to the checkpoint.',
  }
}

function checkLogits(logits: Float32Array, spans: readonly TokenSpan[]): void {
  const at = logits.findIndex((value) => !Number.isFinite(value))
  if (at >= 0) throw notFinite(`${logits[at]} at element ${at} of the step's logits`, spans)
}

function notFinite(what: string, spans: readonly TokenSpan[]): ModelError {
  return new ModelError({
    code: 'not-finite',
    message: 'The model gives logits that are not finite',
    received: `${what}, positions from ${spans.map((s) => s.begin).join(', ')}`,
    next: 'Look for NaN or infinite weights: polygraft inspect and verify name them.',
  })
}
