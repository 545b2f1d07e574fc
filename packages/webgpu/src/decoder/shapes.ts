import type { FloatDType } from '@polygraft/tensor'
import type { GpuBuffer } from '../gpu.js'

/*
 * What the decoder's backend takes and gives. `Backend` of `@polygraft/model` describes the operations; this package lies below it, so that
 * the same shapes are written here, and TypeScript compares them where a model is opened on this backend.
 * Letters as there: T rows of a step, H hidden, R rotated dimensions, E experts, k experts for a row.
 */

/** A stored tensor on the device. Matrices keep their dtype; vectors become F32. */
export interface GpuWeight {
  readonly shape: readonly number[]
  readonly dtype: FloatDType
  /** Whole rows each, in order; the buffers are of at most `gpu.maxBindingBytes`. */
  pieces: readonly WeightPiece[]
}

/** Rows [begin, end) of a weight, from element `from` of the buffer. */
export interface WeightPiece {
  readonly buffer: GpuBuffer
  readonly begin: number
  readonly end: number
  readonly from: number
  /** Other weights lie in the buffer too. */
  readonly shared?: true
}

/** F32 [rows, columns]. */
export interface GpuRows {
  readonly rows: number
  readonly columns: number
  readonly buffer: GpuBuffer
}

export interface GpuRouting {
  readonly rows: number
  readonly numExperts: number
  readonly topK: number
  readonly probabilities: GpuBuffer
  readonly experts: GpuBuffer
  readonly weights: GpuBuffer
}

/** Keys and values of each layer, F32 [capacity, width]. */
export interface GpuCache {
  readonly capacity: number
  readonly width: number
  readonly layers: readonly { readonly keys: GpuBuffer; readonly values: GpuBuffer }[]
}

interface GpuSpan {
  readonly cache: GpuCache
  readonly begin: number
  readonly count: number
}

/** The rows that are computed together, and what holds for all layers. */
export interface GpuStep {
  readonly rows: number
  readonly spans: readonly GpuSpan[]
  readonly tokens: GpuBuffer
  readonly cos: GpuBuffer
  readonly sin: GpuBuffer
  /** R / 2 */
  readonly half: number
}

export interface GpuWeightSource {
  readonly dtype: FloatDType
  readonly shape: readonly number[]
  read(begin: number, end: number): Promise<Uint8Array>
}

export interface GpuStepInput {
  readonly tokens: Uint32Array
  readonly spans: readonly GpuSpan[]
  readonly cos: Float32Array
  readonly sin: Float32Array
}

export interface GpuLinear {
  readonly weight: GpuWeight
  readonly bias?: GpuWeight | undefined
}

export interface GpuAttentionLayer {
  readonly layer: number
  readonly q: GpuLinear
  readonly k: GpuLinear
  readonly v: GpuLinear
  readonly o: GpuLinear
  readonly qNorm?: GpuWeight | undefined
  readonly kNorm?: GpuWeight | undefined
  readonly numHeads: number
  readonly keyValueHeads: number
  readonly headDim: number
  readonly eps: number
  readonly scale: number
  readonly window: number | null
}

export interface GpuGatedMlp {
  readonly gate: GpuLinear
  readonly up: GpuLinear
  readonly down: GpuLinear
  readonly activation: 'silu' | 'gelu' | 'gelu_tanh' | 'relu'
}

export interface GpuGate {
  readonly router: GpuWeight
  readonly topK: number
  readonly normalize: boolean
}
