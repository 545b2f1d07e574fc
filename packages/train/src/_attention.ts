import type { Floats, Matmul } from './matmul.js'

/** A document in a batch: tokens [begin, end), which see one another and nothing else. */
export interface Segment {
  readonly begin: number
  readonly end: number
  /** Whether it is in a language that the model had before: what LPR sends to expert 0. */
  readonly isOriginal?: boolean
  /** The experts that its language is to take, for the language loss. */
  readonly experts?: readonly number[]
}

/** Sizes of an attention layer over T tokens. */
export interface AttentionShape {
  readonly tokens: number
  readonly numHeads: number
  readonly numKeyValueHeads: number
  readonly headDim: number
  readonly window: number
}

/** Elements that `attention` keeps of the probabilities: L^2 for each head and each document of L tokens. */
export function probabilitySize(segments: readonly Segment[], numHeads: number): number {
  return segments.reduce((sum, { begin, end }) => sum + (end - begin) ** 2 * numHeads, 0)
}

type Head = (q: number, kv: number, p: number, length: number) => void

/** Calls `run` for each document and head: offsets into q and o, into k and v, into the probabilities; the document's length. */
function forEachHead(shape: AttentionShape, segments: readonly Segment[], run: Head): void {
  const { tokens, numHeads, numKeyValueHeads, headDim } = shape
  const group = numHeads / numKeyValueHeads
  let p = 0
  for (const { begin, end } of segments)
    for (let head = 0; head < numHeads; head++) {
      const length = end - begin
      const keyValueHead = Math.floor(head / group)
      run((head * tokens + begin) * headDim, (keyValueHead * tokens + begin) * headDim, p, length)
      p += length * length
    }
}

/**
 * Causal softmax(q k^T / sqrt(D)) v within each document. q, o: head-major [heads, T, D]; k, v: [key-value heads, T, D].
 * Keeps the probabilities, zeros where a position does not see, in `p`.
 */
export function attention(
  matmul: Matmul,
  shape: AttentionShape,
  segments: readonly Segment[],
  q: Floats,
  k: Floats,
  v: Floats,
  p: Floats,
  o: Floats,
): void {
  const { headDim: d, window } = shape
  const scale = 1 / Math.sqrt(d)
  forEachHead(shape, segments, (qAt, kvAt, pAt, length) => {
    const size = length * d
    const scores = p.subarray(pAt, pAt + length * length)
    matmul.nt(length, length, d, q.subarray(qAt, qAt + size), k.subarray(kvAt, kvAt + size), scores, false)
    causalSoftmax(scores, length, scale, window)
    matmul.nn(length, d, length, scores, v.subarray(kvAt, kvAt + size), o.subarray(qAt, qAt + size), false)
  })
}

/** dq replaces; dk and dv are added to, since several heads share them. `scratch`: two times the longest document's length squared. */
export function attentionBackward(
  matmul: Matmul,
  shape: AttentionShape,
  segments: readonly Segment[],
  q: Floats,
  k: Floats,
  v: Floats,
  p: Floats,
  dO: Floats,
  dq: Floats,
  dk: Floats,
  dv: Floats,
  scratch: Floats,
): void {
  const { headDim: d } = shape
  const scale = 1 / Math.sqrt(d)
  forEachHead(shape, segments, (qAt, kvAt, pAt, length) => {
    const size = length * d
    const at = (x: Floats, begin: number) => x.subarray(begin, begin + size)
    const probabilities = p.subarray(pAt, pAt + length * length)
    const dp = scratch.subarray(0, length * length)
    matmul.nt(length, length, d, at(dO, qAt), at(v, kvAt), dp, false)
    softmaxBackward(probabilities, dp, length, scale)
    matmul.nn(length, d, length, dp, at(k, kvAt), at(dq, qAt), false)
    matmul.tn(length, d, length, dp, at(q, qAt), at(dk, kvAt), true)
    matmul.tn(length, d, length, probabilities, at(dO, qAt), at(dv, kvAt), true)
  })
}

function causalSoftmax(scores: Floats, length: number, scale: number, window: number): void {
  for (let i = 0; i < length; i++) {
    const at = i * length
    const first = Math.max(0, i - window + 1)
    let highest = -Infinity
    for (let j = first; j <= i; j++) if (scores[at + j]! > highest) highest = scores[at + j]!
    let sum = 0
    for (let j = first; j <= i; j++) {
      const e = Math.exp((scores[at + j]! - highest) * scale)
      scores[at + j] = e
      sum += e
    }
    const by = 1 / sum
    for (let j = first; j <= i; j++) scores[at + j]! *= by
    scores.fill(0, at, at + first)
    scores.fill(0, at + i + 1, at + length)
  }
}

/** dp -> d scores: p (dp - sum(p dp)) scale, in place. */
function softmaxBackward(p: Floats, dp: Floats, length: number, scale: number): void {
  for (let i = 0; i < length; i++) {
    const at = i * length
    let along = 0
    for (let j = 0; j <= i; j++) along += p[at + j]! * dp[at + j]!
    for (let j = 0; j <= i; j++) dp[at + j] = p[at + j]! * (dp[at + j]! - along) * scale
    dp.fill(0, at + i + 1, at + length)
  }
}
