import { probabilityStride } from '@polygraft/kernels'
import { addScaled, type Floats } from './matmul.js'

/** A document in a batch: tokens [begin, end), which see one another and nothing else. */
export interface Segment {
  readonly begin: number
  readonly end: number
  /** Whether it is in a language that the model had before: what LPR sends to expert 0. */
  readonly isOriginal?: boolean
  /** The experts that its language is to take, for the language loss. */
  readonly experts?: readonly number[]
}

/** Sizes of an attention layer. */
export interface AttentionShape {
  readonly numHeads: number
  readonly numKeyValueHeads: number
  readonly headDim: number
  readonly window: number
}

/** Where the documents of a batch are, and their probabilities. */
export interface DocumentTable {
  readonly count: number
  /** Three for each: the first token, how many, and the element of the probabilities where its own begin. */
  readonly words: Int32Array
  /** Tokens of the longest. */
  readonly longest: number
  /** Elements of all probabilities: for each head and document of L tokens L rows of L, rounded up to a multiple of 4. */
  readonly size: number
}

/** @param allocate Gives the memory of the words. */
export function documentTable(
  segments: readonly Segment[],
  numHeads: number,
  allocate: (length: number) => Int32Array,
): DocumentTable {
  const words = allocate(segments.length * 3)
  let [size, longest] = [0, 0]
  for (const [i, { begin, end }] of segments.entries()) {
    const length = end - begin
    words.set([begin, length, size], i * 3)
    size += numHeads * length * probabilityStride(length)
    longest = Math.max(longest, length)
  }
  return { count: segments.length, words, longest, size }
}

/** Rows of one head of one document: elements from row to row, and where the first begins. */
interface Head {
  readonly length: number
  readonly q: number
  readonly qStride: number
  readonly kv: number
  readonly kvStride: number
  readonly p: number
  readonly pStride: number
}

function heads(
  { numHeads, numKeyValueHeads, headDim }: AttentionShape,
  { count, words }: DocumentTable,
): Head[] {
  const [qStride, kvStride] = [numHeads * headDim, numKeyValueHeads * headDim]
  return Array.from({ length: count * numHeads }, (_, i): Head => {
    const [document, head] = [Math.floor(i / numHeads), i % numHeads]
    const [begin, length, p] = words.subarray(document * 3, document * 3 + 3) as unknown as [
      number,
      number,
      number,
    ]
    const pStride = probabilityStride(length)
    const keyValueHead = Math.floor((head * numKeyValueHeads) / numHeads)
    return {
      length,
      q: begin * qStride + head * headDim,
      qStride,
      kv: begin * kvStride + keyValueHead * headDim,
      kvStride,
      p: p + head * length * pStride,
      pStride,
    }
  })
}

/** `Compute.attention` in plain TypeScript. */
export function attention(
  shape: AttentionShape,
  documents: DocumentTable,
  q: Floats,
  k: Floats,
  v: Floats,
  p: Floats,
  o: Floats,
): void {
  const { headDim: D, window } = shape
  const scale = 1 / Math.sqrt(D)
  for (const head of heads(shape, documents))
    for (let i = 0; i < head.length; i++) {
      const [row, at] = [head.p + i * head.pStride, head.q + i * head.qStride]
      const first = Math.max(0, i - window + 1)
      p.fill(0, row, row + head.pStride)
      let highest = -Infinity
      for (let j = first; j <= i; j++) {
        p[row + j] = dot(q, at, k, head.kv + j * head.kvStride, D) * scale
        highest = Math.max(highest, p[row + j]!)
      }
      let sum = 0
      for (let j = first; j <= i; j++) {
        p[row + j] = Math.exp(p[row + j]! - highest)
        sum += p[row + j]!
      }
      o.fill(0, at, at + D)
      for (let j = first; j <= i; j++) {
        p[row + j]! /= sum
        addScaled(p[row + j]!, v, head.kv + j * head.kvStride, o, at, D)
      }
    }
}

/** `Compute.attentionBackward` in plain TypeScript. */
export function attentionBackward(
  shape: AttentionShape,
  documents: DocumentTable,
  q: Floats,
  k: Floats,
  v: Floats,
  p: Floats,
  dO: Floats,
  dq: Floats,
  dk: Floats,
  dv: Floats,
): void {
  const { headDim: D } = shape
  const scale = 1 / Math.sqrt(D)
  const dp = new Float64Array(documents.longest)
  for (const head of heads(shape, documents))
    for (let i = 0; i < head.length; i++) {
      const [row, at] = [head.p + i * head.pStride, head.q + i * head.qStride]
      let along = 0
      for (let j = 0; j <= i; j++) {
        dp[j] = dot(dO, at, v, head.kv + j * head.kvStride, D)
        along += p[row + j]! * dp[j]!
      }
      dq.fill(0, at, at + D)
      for (let j = 0; j <= i; j++) {
        const key = head.kv + j * head.kvStride
        const d = p[row + j]! * (dp[j]! - along) * scale
        addScaled(d, k, key, dq, at, D)
        addScaled(d, q, at, dk, key, D)
        addScaled(p[row + j]!, dO, at, dv, key, D)
      }
    }
}

function dot(a: Floats, aAt: number, b: Floats, bAt: number, count: number): number {
  let sum = 0
  for (let i = 0; i < count; i++) sum += a[aAt + i]! * b[bAt + i]!
  return sum
}
