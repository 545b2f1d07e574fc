import type { Segment } from './_attention.js'
import type { Floats } from './matmul.js'

/** Weights of the losses on routers, each a mean over tokens. */
export interface RouterLosses {
  /** E * sum_e f_e P_e: f_e the share of the slots, P_e the mean probability (arXiv:2101.03961). */
  readonly balance: number
  /** mean(logsumexp^2) of the router's logits (arXiv:2202.08906). */
  readonly z: number
  /** Language priors routing (MoE-LPR, arXiv:2408.11396): -log p_0 on tokens of original documents; 0 in a batch without any. */
  readonly lpr?: number
  /**
   * `published`: as MoE-LPR's code has it, the cross-entropy takes the probabilities for logits, -log softmax(p)_0, so that the loss
   * cannot fall below log(1 + (E - 1) / e).
   */
  readonly lprForm?: 'exact' | 'published'
  /** -log of the sum of p_e over the experts of the document's language, on tokens of documents that name some. */
  readonly language?: number
}

/**
 * Weighted LPR and language losses of one router's logits and probabilities [T, E]. With `dLogits`, adds `share` of their gradient.
 */
export function languageLosses(
  losses: RouterLosses,
  segments: readonly Segment[],
  numExperts: number,
  logits: Floats,
  probabilities: Floats,
  dLogits?: Floats,
  share = 1,
): number {
  const { lpr = 0, language = 0, lprForm = 'exact' } = losses
  const original = segments.filter(({ isOriginal }) => isOriginal)
  const named = segments.filter(({ experts }) => experts !== undefined)
  let loss = 0
  const add = (
    by: number,
    of: readonly Segment[],
    row: (at: number, by: number, segment: Segment) => number,
  ) => {
    const tokens = of.reduce((sum, { begin, end }) => sum + end - begin, 0)
    if (by === 0 || tokens === 0) return
    for (const segment of of)
      for (let t = segment.begin; t < segment.end; t++)
        loss += (by / tokens) * row(t * numExperts, (by / tokens) * share, segment)
  }
  const onlyFirst = [0]
  add(lpr, original, (at, by) =>
    lprForm === 'exact'
      ? groupRow(onlyFirst, numExperts, logits, probabilities, at, dLogits, by)
      : publishedRow(numExperts, probabilities, at, dLogits, by),
  )
  add(language, named, (at, by, { experts }) =>
    groupRow(experts!, numExperts, logits, probabilities, at, dLogits, by),
  )
  return loss
}

/** -log sum_{e in group} p_e, from the logits: finite where a probability rounds to 0. */
function groupRow(
  group: readonly number[],
  numExperts: number,
  logits: Floats,
  p: Floats,
  at: number,
  dLogits: Floats | undefined,
  by: number,
): number {
  const within = logSumExp(group.map((e) => logits[at + e]!))
  const loss = logSumExp(logits.subarray(at, at + numExperts)) - within
  if (!dLogits) return loss
  for (let e = 0; e < numExperts; e++) dLogits[at + e]! += by * p[at + e]!
  for (const e of group) dLogits[at + e]! -= by * Math.exp(logits[at + e]! - within)
  return loss
}

/** -log softmax(p)_0 */
function publishedRow(
  numExperts: number,
  p: Floats,
  at: number,
  dLogits: Floats | undefined,
  by: number,
): number {
  const row = p.subarray(at, at + numExperts)
  const log = logSumExp(row)
  if (!dLogits) return log - row[0]!
  const slope = (e: number) => Math.exp(row[e]! - log) - Number(e === 0)
  let along = 0
  for (let e = 0; e < numExperts; e++) along += row[e]! * slope(e)
  for (let e = 0; e < numExperts; e++) dLogits[at + e]! += by * row[e]! * (slope(e) - along)
  return log - row[0]!
}

export function logSumExp(row: Floats | readonly number[]): number {
  let highest = -Infinity
  for (let i = 0; i < row.length; i++) highest = Math.max(highest, row[i]!)
  let sum = 0
  for (let i = 0; i < row.length; i++) sum += Math.exp(row[i]! - highest)
  return highest + Math.log(sum)
}
