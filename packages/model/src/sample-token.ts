import { randomValues } from '@polygraft/kernels'

/** How the next token is drawn. The filters apply in the order temperature, topK, topP, minP. */
export interface Sampling {
  /** Logits are divided by it; 0 takes the most probable token, of equal ones the lower id. Default 0. */
  readonly temperature?: number
  /** Only the k most probable tokens. Default: all. */
  readonly topK?: number
  /** Only the most probable tokens that together reach this probability (arXiv:1904.09751). Default 1. */
  readonly topP?: number
  /** Only tokens at least this share of the most probable one's probability (arXiv:2407.01082). Default 0. */
  readonly minP?: number
  /** Default 0. */
  readonly seed?: number
}

/** A token of the vocabulary from its logits [V]. The draw derives from (seed, position) alone, so that nothing else changes it. */
export function sampleToken(logits: Float32Array, sampling: Sampling, position: number): number {
  const { temperature = 0, topK = 0, topP = 1, minP = 0, seed = 0 } = sampling
  if (temperature === 0) return largestOf(logits)
  const order = Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b)
  const first = topK > 0 ? order.slice(0, topK) : order
  const most = logits[first[0]!]!
  const candidates = first.map((id) => Math.exp((logits[id]! - most) / temperature))
  const weights = candidates.slice(0, countOf(candidates, topP, minP))
  const draw = new Float32Array(1)
  randomValues('uniform', 0.5, seed, 'sample', position, draw)
  let left = (draw[0]! + 0.5) * sum(weights)
  const index = weights.findIndex((weight) => {
    left -= weight
    return left < 0
  })
  return first[index < 0 ? weights.length - 1 : index]!
}

/** How many of the weights, largest first, both filters keep; one at least. */
function countOf(weights: readonly number[], topP: number, minP: number): number {
  const needed = topP * sum(weights)
  let reached = 0
  const byShare = weights.findIndex((weight) => {
    reached += weight
    return reached >= needed
  })
  const byLeast = weights.findIndex((weight) => weight < minP * weights[0]!)
  return Math.max(
    1,
    Math.min(byShare < 0 ? weights.length : byShare + 1, byLeast < 0 ? weights.length : byLeast),
  )
}

function largestOf(logits: Float32Array): number {
  let best = 0
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i
  return best
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)
