import { logSumExp } from './_language-losses.js'
import type { Floats } from './matmul.js'

/** Which experts a router's logits choose. T tokens, E experts, k experts a token; a slot is a token's choice, T k of them. */
export interface Routing {
  readonly probabilities: Floats
  /** [T, k], highest first. */
  readonly chosen: Int32Array
  /** [T, k]: the chosen probabilities, divided by their sum where that is how the model gates. */
  readonly weights: Floats
  /** Pairs of expert e are rows [offsets[e], offsets[e + 1]) where slots are grouped by expert, in the order of tokens. */
  readonly offsets: Int32Array
  /** [T, k]: the pair of a slot. */
  readonly places: Int32Array
  /** The token of a pair. */
  readonly sources: Int32Array
  /** The weight of a pair. */
  readonly pairWeights: Floats
  /** Sum over tokens of logsumexp^2. */
  readonly z: number
  /** E sum_e f_e P_e. */
  readonly balance: number
}

/** The memory of a `Routing`. */
export interface RoutingMemory {
  allocate(length: number): Floats
  allocateWords(length: number): Int32Array
}

/** Softmax, then the k most probable experts of each token; of equals the lower index comes first. */
export function chooseExperts(
  memory: RoutingMemory,
  logits: Floats,
  numExperts: number,
  topK: number,
  normalize: boolean,
): Routing {
  const tokens = logits.length / numExperts
  const probabilities = memory.allocate(logits.length)
  const [chosen, places, sources] = [0, 1, 2].map(() => memory.allocateWords(tokens * topK)) as [
    Int32Array,
    Int32Array,
    Int32Array,
  ]
  const [weights, pairWeights] = [memory.allocate(chosen.length), memory.allocate(chosen.length)]
  const offsets = new Int32Array(numExperts + 1)
  const means = new Float64Array(numExperts)
  let z = 0
  for (let t = 0; t < tokens; t++) {
    z += softmaxRow(logits, probabilities, t * numExperts, numExperts) ** 2
    chooseHighest(probabilities, t * numExperts, numExperts, topK, chosen, t * topK)
    let sum = 0
    for (let slot = t * topK; slot < (t + 1) * topK; slot++)
      sum += probabilities[t * numExperts + chosen[slot]!]!
    for (let slot = t * topK; slot < (t + 1) * topK; slot++) {
      weights[slot] = probabilities[t * numExperts + chosen[slot]!]! / (normalize ? sum : 1)
      offsets[chosen[slot]! + 1]!++
    }
    for (let e = 0; e < numExperts; e++) means[e]! += probabilities[t * numExperts + e]! / tokens
  }
  let balance = 0
  for (let e = 0; e < numExperts; e++) balance += (numExperts * means[e]! * offsets[e + 1]!) / chosen.length
  for (let e = 0; e < numExperts; e++) offsets[e + 1]! += offsets[e]!
  const next = offsets.slice(0, numExperts)
  for (let slot = 0; slot < chosen.length; slot++) {
    const pair = next[chosen[slot]!]!++
    places[slot] = pair
    sources[pair] = Math.floor(slot / topK)
    pairWeights[pair] = weights[slot]!
  }
  return { probabilities, chosen, weights, offsets, places, sources, pairWeights, z, balance }
}

/**
 * The gradient of a router's logits. dots: of each pair, the gradient of the output times what the expert gave. `balance` and `z`: the
 * weights of these losses.
 */
export function routingBackward(
  routing: Routing,
  logits: Floats,
  dots: Floats,
  topK: number,
  normalize: boolean,
  { balance, z }: { readonly balance: number; readonly z: number },
  dLogits: Floats,
): void {
  const { probabilities: p, chosen, weights, offsets, places } = routing
  const numExperts = offsets.length - 1
  const tokens = logits.length / numExperts
  const dp = new Float64Array(numExperts)
  for (let t = 0; t < tokens; t++) {
    const at = t * numExperts
    for (let e = 0; e < numExperts; e++)
      dp[e] = (balance * numExperts * (offsets[e + 1]! - offsets[e]!)) / (tokens * topK) / tokens
    let [sum, along] = [0, 0]
    for (let slot = t * topK; slot < (t + 1) * topK; slot++) {
      sum += p[at + chosen[slot]!]!
      along += weights[slot]! * dots[places[slot]!]!
    }
    for (let slot = t * topK; slot < (t + 1) * topK; slot++) {
      const d = dots[places[slot]!]!
      dp[chosen[slot]!]! += normalize ? (d - along) / sum : d
    }
    let mean = 0
    for (let e = 0; e < numExperts; e++) mean += dp[e]! * p[at + e]!
    const slope = z === 0 ? 0 : ((z * 2) / tokens) * logSumExp(logits.subarray(at, at + numExperts))
    for (let e = 0; e < numExperts; e++) dLogits[at + e] = p[at + e]! * (dp[e]! - mean + slope)
  }
}

/** `count` probabilities from logits, both from `at` on; returns logsumexp. */
function softmaxRow(logits: Floats, p: Floats, at: number, count: number): number {
  let highest = -Infinity
  for (let e = at; e < at + count; e++) if (!(logits[e]! <= highest)) highest = logits[e]!
  let sum = 0
  for (let e = at; e < at + count; e++) sum += Math.exp(logits[e]! - highest)
  const log = highest + Math.log(sum)
  for (let e = at; e < at + count; e++) p[e] = Math.exp(logits[e]! - log)
  return log
}

/** The indices of the `topK` highest of `count` values of `p` from `from` on, highest first. */
function chooseHighest(
  p: Floats,
  from: number,
  count: number,
  topK: number,
  chosen: Int32Array,
  at: number,
): void {
  for (let i = at; i < at + topK; i++) {
    let best = -1
    for (let e = 0; e < count; e++) {
      const isHigher = best < 0 || p[from + e]! > p[from + best]!
      if (isHigher && !isAmong(chosen, at, i, e)) best = e
    }
    chosen[i] = best
  }
}

function isAmong(chosen: Int32Array, begin: number, end: number, e: number): boolean {
  for (let i = begin; i < end; i++) if (chosen[i] === e) return true
  return false
}
