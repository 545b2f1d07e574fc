/*
 * Letters: E experts, T tokens, k experts for a token.
 */

/** Where tokens went in one layer. A token adds 1 to each of its k experts. */
export interface ExpertLoad {
  readonly tokens: number
  /** [E] */
  readonly counts: Float64Array
  /** Sums of the gate's probabilities over the tokens, [E]. */
  readonly mass: Float64Array
}

/** What a gate did with T tokens: its probabilities, softmax over all experts, [T, E]; the chosen experts, [T, k]. */
export interface GateTrace {
  readonly probabilities: Float32Array
  readonly experts: Uint32Array
}

export function createLoad(numExperts: number): ExpertLoad {
  return { tokens: 0, counts: new Float64Array(numExperts), mass: new Float64Array(numExperts) }
}

/** `load` with the tokens of `trace` added. */
export function addLoad(load: ExpertLoad, { probabilities, experts }: GateTrace): ExpertLoad {
  const numExperts = load.counts.length
  const [counts, mass] = [load.counts.slice(), load.mass.slice()]
  for (const expert of experts) counts[expert]! += 1
  for (let i = 0; i < probabilities.length; i++) mass[i % numExperts]! += probabilities[i]!
  return { tokens: load.tokens + probabilities.length / numExperts, counts, mass }
}

/** The load of some layers or languages together. */
export function sumLoads(loads: readonly ExpertLoad[]): ExpertLoad {
  const sum = createLoad(loads[0]?.counts.length ?? 0)
  return loads.reduce(
    (a, b) => ({
      tokens: a.tokens + b.tokens,
      counts: a.counts.map((count, e) => count + b.counts[e]!),
      mass: a.mass.map((each, e) => each + b.mass[e]!),
    }),
    sum,
  )
}

/** A load in shares. */
export interface LoadSummary {
  readonly tokens: number
  /** Of all choices, those of each expert; they sum to 1. [E] */
  readonly share: readonly number[]
  /** Mean probability of each expert. [E] */
  readonly probability: readonly number[]
  /** Entropy of `share` over log E: 1 when all experts are used alike, 0 when one takes all. 1 for a single expert. */
  readonly entropy: number
  /** Share of tokens that expert 0 is among the chosen of. */
  readonly expert0: number
}

/** Of no tokens, the shares are 0 and the entropy is NaN. */
export function summarizeLoad({ tokens, counts, mass }: ExpertLoad): LoadSummary {
  const choices = counts.reduce((sum, count) => sum + count, 0)
  const share = [...counts].map((count) => (choices === 0 ? 0 : count / choices))
  return {
    tokens,
    share,
    probability: [...mass].map((each) => (tokens === 0 ? 0 : each / tokens)),
    entropy: choices === 0 ? Number.NaN : entropyOf(share),
    expert0: tokens === 0 ? 0 : (counts[0] ?? 0) / tokens,
  }
}

function entropyOf(share: readonly number[]): number {
  if (share.length < 2) return 1
  const entropy = share.reduce((sum, p) => (p > 0 ? sum - p * Math.log(p) : sum), 0)
  return entropy / Math.log(share.length)
}

/**
 * Routing drift: the share of tokens whose set of k experts differs between two traces of the same tokens, as by a graft,
 * whose delta moves what the router reads. The order within the k does not count. `before`, `after` [T, k].
 */
export function routingDrift(before: Uint32Array, after: Uint32Array, topK: number): number {
  const tokens = before.length / topK
  let moved = 0
  for (let t = 0; t < tokens; t++) {
    const chosen = before.subarray(t * topK, (t + 1) * topK)
    if (after.subarray(t * topK, (t + 1) * topK).some((expert) => !chosen.includes(expert))) moved++
  }
  return tokens === 0 ? 0 : moved / tokens
}
