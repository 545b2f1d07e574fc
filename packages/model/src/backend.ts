import type { FloatDType } from '@polygraft/tensor'

/*
 * What the decoder asks of a device. Tensors are opaque handles: activations are F32 rows on the device, weights lie there as
 * they are stored. Operations are queued and run in the order of the calls; only `read` and `readRouting` wait, so that a step
 * of the whole model is one submission. Errors of the device come out of the next read.
 *
 * Letters: T rows of a step, H hidden, Q query heads * D, K key-value heads * D, D head_dim, R rotated dimensions (R <= D),
 * I intermediate, E experts, k experts for a token, V vocabulary.
 */

/** A stored tensor on the device. */
export interface Weight {
  readonly shape: readonly number[]
  readonly dtype: FloatDType
}

/** F32 [rows, columns] on the device; lives until its step ends. */
export interface Rows {
  readonly rows: number
  readonly columns: number
}

/** Which experts each row takes and with what weights; lives until its step ends. */
export interface Routing {
  readonly rows: number
  readonly numExperts: number
  readonly topK: number
}

/** Keys and values of one sequence in every layer, on the device. */
export interface Cache {
  /** Positions that it has room for. */
  readonly capacity: number
}

/** The rows that a step computes, on the device. */
export interface Step {
  readonly rows: number
}

/** A tensor to be taken onto the device. */
export interface WeightSource {
  readonly dtype: FloatDType
  /** [V, H], [N, K] of y = x W^T, or [H]. */
  readonly shape: readonly number[]
  /** The stored little-endian bytes of elements [begin, end), row-major. The bytes may be reused after the next call. */
  read(begin: number, end: number): Promise<Uint8Array>
}

/** Sizes of the keys and values of every layer. */
export interface CacheLayout {
  readonly numLayers: number
  readonly keyValueHeads: number
  readonly headDim: number
}

/** A sequence's part of a step: its positions [begin, begin + count) are computed; keys and values before them are cached. */
export interface Span {
  readonly cache: Cache
  readonly begin: number
  readonly count: number
}

/** What a step is made of. The rows of all spans follow one another. */
export interface StepInput {
  readonly tokens: Uint32Array
  readonly spans: readonly Span[]
  /** Of each row's position, F32 [T, R / 2]: element i rotates dimensions i and i + R / 2 of a head. */
  readonly cos: Float32Array
  readonly sin: Float32Array
}

/** y = x W^T + b. */
export interface Linear {
  /** [N, K] */
  readonly weight: Weight
  /** [N] */
  readonly bias?: Weight | undefined
}

export interface AttentionLayer {
  /** Which of the cache's layers. */
  readonly layer: number
  readonly q: Linear
  readonly k: Linear
  readonly v: Linear
  readonly o: Linear
  /** [D], applied to every head before the rotation. */
  readonly qNorm?: Weight | undefined
  readonly kNorm?: Weight | undefined
  readonly numHeads: number
  readonly keyValueHeads: number
  readonly headDim: number
  readonly eps: number
  /** Factor of the scores, D^-0.5 in most families. */
  readonly scale: number
  /** A position sees itself and the `window - 1` before it; null: all. */
  readonly window: number | null
}

/** silu(x) = x sigmoid(x); gelu by erf, or by tanh. */
export type Activation = 'silu' | 'gelu' | 'gelu_tanh' | 'relu'

/** W_down (act(W_gate x) * W_up x). */
export interface GatedMlp {
  readonly gate: Linear
  readonly up: Linear
  readonly down: Linear
  readonly activation: Activation
}

/** A mixture's gate. Both kinds: softmax over all E logits, the k largest, of equal ones the lower index first. */
export interface Gate {
  /** [E, H] */
  readonly router: Weight
  readonly topK: number
  /** Whether the k weights are divided by their sum. */
  readonly normalize: boolean
}

/** What `readRouting` gives, row by row. */
export interface RoutingValues {
  /** Softmax over all experts, [T, E]. */
  readonly probabilities: Float32Array
  /** The chosen experts, most probable first, [T, k]. */
  readonly experts: Uint32Array
  /** Weights of their outputs, [T, k]. */
  readonly weights: Float32Array
}

/** A device with the operations of a decoder. `createCpuBackend` makes one; `@polygraft/webgpu` another. */
export interface Backend {
  readonly name: string

  /**
   * Takes a weight onto the device.
   * @throws ModelError "out-of-memory" when the device cannot hold it.
   */
  upload(source: WeightSource): Promise<Weight>
  /** Room for `capacity` positions; what it holds before they are computed is undefined. */
  createCache(layout: CacheLayout, capacity: number): Cache
  /** The first `count` positions of `from` into `to`. */
  copyCache(from: Cache, to: Cache, count: number): void
  freeCache(cache: Cache): void

  /** Opens a step; one at a time. Its rows' positions must fit their caches. */
  beginStep(input: StepInput): Step
  /** Frees every `Rows` and `Routing` of the step. */
  endStep(step: Step): void

  /** scale * table[token], [T, H]. */
  embed(step: Step, table: Weight, scale: number): Rows
  /** x / sqrt(mean(x^2) + eps) * weight, row by row (RMSNorm, arXiv:1910.07467). */
  norm(x: Rows, weight: Weight, eps: number): Rows
  /** hidden += factor * o(attention(q(x), k(x), v(x))), causal within each span; writes the spans' keys and values into their caches. */
  attention(step: Step, layer: AttentionLayer, hidden: Rows, x: Rows, factor: number): void
  /** hidden += factor * sigmoid(x scale^T) * mlp(x); without `scale` [1, H] the sigmoid is left out. */
  mlp(mlp: GatedMlp, hidden: Rows, x: Rows, factor: number, scale?: Weight): void
  gate(gate: Gate, x: Rows): Routing
  /** hidden += factor * sum over the row's experts of weight * expert(x). Computes chosen experts only. */
  experts(experts: readonly GatedMlp[], routing: Routing, hidden: Rows, x: Rows, factor: number): void
  /** Rows by index: [indices.length, columns]. */
  gather(x: Rows, indices: readonly number[]): Rows
  /** factor * (x W^T + b). */
  linear(linear: Linear, x: Rows, factor: number): Rows

  /** Everything queued so far is done, and these values are on their way: [rows, columns]. */
  read(x: Rows): Promise<Float32Array>
  readRouting(routing: Routing): Promise<RoutingValues>
  /** Where a device finds them itself: each row's largest element, of equal ones the lowest index; `columns` where one is not finite. */
  readLargest?(x: Rows): Promise<Uint32Array>

  /** Frees everything. */
  close(): Promise<void>
}
