import type { Segment } from './_attention.js'
import { languageLosses, logSumExp, type RouterLosses } from './_language-losses.js'
import { linear, linearBackward } from './_linear.js'
import { type MlpActivations, mlpActivations, mlpBackward, mlpForward } from './_mlp.js'
import type { Floats, Matmul } from './matmul.js'
import type { Layer, Mlp } from './parameters.js'

export type Allocate = (length: number) => Floats

export interface MixtureSizes {
  readonly tokens: number
  readonly topK: number
  readonly normalize: boolean
  readonly segments: readonly Segment[]
}

/** One expert's tokens, and what its gradients need. */
interface Group {
  readonly mlp: Mlp
  readonly slots: readonly number[]
  readonly x: Floats
  readonly y: Floats
  readonly activations: MlpActivations
}

export interface MixtureState {
  readonly logits: Floats
  readonly probabilities: Floats
  /** [T, k] */
  readonly chosen: Int32Array
  readonly weights: Floats
  readonly groups: readonly Group[]
  /** Slots of each expert. */
  readonly counts: readonly number[]
  readonly loss: number
}

/** Adds each token's k chosen experts to `out`. Only these are computed. */
export function mixtureForward(
  matmul: Matmul,
  allocate: Allocate,
  layer: Layer,
  sizes: MixtureSizes,
  losses: RouterLosses,
  x: Floats,
  out: Floats,
): MixtureState {
  const { tokens, topK, normalize, segments } = sizes
  const router = layer.router!
  const [numExperts, width] = [router.out, router.in]
  const logits = allocate(tokens * numExperts)
  linear(matmul, router, tokens, x, logits)
  const probabilities = allocate(logits.length)
  const chosen = new Int32Array(tokens * topK)
  const weights = allocate(chosen.length)
  const slots: number[][] = Array.from({ length: numExperts }, () => [])
  let z = 0
  for (let t = 0; t < tokens; t++) {
    const row = logits.subarray(t * numExperts, (t + 1) * numExperts)
    const p = probabilities.subarray(t * numExperts, (t + 1) * numExperts)
    z += softmaxRow(row, p) ** 2
    chooseHighest(p, topK, chosen, t * topK)
    let sum = 0
    for (let slot = t * topK; slot < (t + 1) * topK; slot++) sum += p[chosen[slot]!]!
    for (let slot = t * topK; slot < (t + 1) * topK; slot++) {
      weights[slot] = p[chosen[slot]!]! / (normalize ? sum : 1)
      slots[chosen[slot]!]!.push(slot)
    }
  }
  let balance = 0
  for (let e = 0; e < numExperts; e++) {
    let mean = 0
    for (let t = 0; t < tokens; t++) mean += probabilities[t * numExperts + e]! / tokens
    balance += (numExperts * mean * slots[e]!.length) / chosen.length
  }
  const groups = layer.experts!.map((mlp, e): Group => {
    const rows = slots[e]!.length
    const group = {
      mlp,
      slots: slots[e]!,
      x: allocate(rows * width),
      y: allocate(rows * width),
      activations: mlpActivations(allocate, rows * mlp.gate.out),
    }
    if (rows === 0) return group
    group.slots.forEach((slot, r) => {
      const t = Math.floor(slot / topK)
      group.x.set(x.subarray(t * width, (t + 1) * width), r * width)
    })
    mlpForward(matmul, mlp, rows, group.x, group.activations, group.y, false)
    group.slots.forEach((slot, r) => {
      const to = Math.floor(slot / topK) * width
      for (let j = 0; j < width; j++) out[to + j]! += weights[slot]! * group.y[r * width + j]!
    })
    return group
  })
  return {
    logits,
    probabilities,
    chosen,
    weights,
    groups,
    counts: slots.map(({ length }) => length),
    loss:
      losses.balance * balance +
      (losses.z * z) / tokens +
      languageLosses(losses, segments, numExperts, logits, probabilities),
  }
}

/** Adds to dx, and to the gradients of experts and router. `share`: the part of the whole loss that this layer's router losses have. */
export function mixtureBackward(
  matmul: Matmul,
  allocate: Allocate,
  layer: Layer,
  sizes: MixtureSizes,
  losses: RouterLosses,
  share: number,
  state: MixtureState,
  x: Floats,
  dOut: Floats,
  dx: Floats,
): void {
  const { tokens, topK, normalize, segments } = sizes
  const router = layer.router!
  const [numExperts, width] = [router.out, router.in]
  const dWeights = allocate(tokens * topK)
  for (const { mlp, slots, ...group } of state.groups) {
    const rows = slots.length
    if (rows === 0) continue
    const dy = allocate(rows * width)
    slots.forEach((slot, r) => {
      const from = Math.floor(slot / topK) * width
      let along = 0
      for (let j = 0; j < width; j++) {
        along += dOut[from + j]! * group.y[r * width + j]!
        dy[r * width + j] = dOut[from + j]! * state.weights[slot]!
      }
      dWeights[slot] = along
    })
    const dGroup = allocate(rows * width)
    const dHidden = allocate(rows * mlp.gate.out)
    mlpBackward(matmul, mlp, rows, group.x, group.activations, dy, dGroup, dHidden)
    slots.forEach((slot, r) => {
      const to = Math.floor(slot / topK) * width
      for (let j = 0; j < width; j++) dx[to + j]! += dGroup[r * width + j]!
    })
  }
  const dLogits = allocate(tokens * numExperts)
  const dp = new Float64Array(numExperts)
  for (let t = 0; t < tokens; t++) {
    const at = t * numExperts
    for (let e = 0; e < numExperts; e++)
      dp[e] = (share * losses.balance * numExperts * state.groups[e]!.slots.length) / (tokens * topK) / tokens
    gateBackward(state, dWeights, t, topK, numExperts, normalize, dp)
    const p = state.probabilities
    let along = 0
    for (let e = 0; e < numExperts; e++) along += dp[e]! * p[at + e]!
    const z = ((share * losses.z * 2) / tokens) * logSumExp(state.logits.subarray(at, at + numExperts))
    for (let e = 0; e < numExperts; e++) dLogits[at + e] = p[at + e]! * (dp[e]! - along + z)
  }
  languageLosses(losses, segments, numExperts, state.logits, state.probabilities, dLogits, share)
  linearBackward(matmul, router, tokens, x, dLogits, dx, true)
}

/** Writes the indices of the `count` highest of `p`, highest first; of equals the lower index comes first. */
function chooseHighest(p: Floats, count: number, chosen: Int32Array, at: number): void {
  for (let i = at; i < at + count; i++) {
    let best = -1
    for (let e = 0; e < p.length; e++) {
      const isHigher = best < 0 || p[e]! > p[best]!
      if (isHigher && !isAmong(chosen, at, i, e)) best = e
    }
    chosen[i] = best
  }
}

function isAmong(chosen: Int32Array, begin: number, end: number, e: number): boolean {
  for (let i = begin; i < end; i++) if (chosen[i] === e) return true
  return false
}

/** Adds the gradient by the probabilities of the k chosen experts. */
function gateBackward(
  { probabilities, chosen, weights }: MixtureState,
  dWeights: Floats,
  t: number,
  topK: number,
  numExperts: number,
  normalize: boolean,
  dp: Float64Array,
): void {
  let sum = 0
  let along = 0
  for (let slot = t * topK; slot < (t + 1) * topK; slot++) {
    sum += probabilities[t * numExperts + chosen[slot]!]!
    along += weights[slot]! * dWeights[slot]!
  }
  for (let slot = t * topK; slot < (t + 1) * topK; slot++)
    dp[chosen[slot]!]! += normalize ? (dWeights[slot]! - along) / sum : dWeights[slot]!
}

/** p = softmax(row); returns logsumexp(row). */
export function softmaxRow(row: Floats, p: Floats): number {
  const log = logSumExp(row)
  for (let e = 0; e < row.length; e++) p[e] = Math.exp(row[e]! - log)
  return log
}
