import { ModelError } from '@polygraft/tensor'

/** Where one token goes: its k experts, most probable first, and the weight of each one's output. */
export interface Routing {
  readonly experts: readonly number[]
  readonly weights: readonly number[]
}

/**
 * Gate A (Mixtral, arXiv:2401.04088): softmax, the k largest, renormalised to sum 1; equal to top-k, then softmax. With equal
 * experts it gives their common output, whatever the router: upcycling preserves the function. For k = 1 the weight is exactly 1.
 * `logits` [E]; equal logits go to the lower index first. F64.
 * @throws ModelError "bad-top-k" unless 1 <= k <= E, "bad-logits" for NaN or +Infinity, or when fewer than k are above -Infinity.
 */
export function gateTopKRenormalized(logits: ArrayLike<number>, k: number): Routing {
  const experts = topK(logits, k)
  const exponentials = experts.map((expert) => Math.exp(logits[expert]! - logits[experts[0]!]!))
  const sum = exponentials.reduce((a, b) => a + b, 0)
  return { experts, weights: exponentials.map((each) => each / sum) }
}

/**
 * Gate B (`norm_topk_prob: false`): softmax over all experts, the k largest as they are. The weights sum to less than 1 for
 * k < E, so that equal experts give less than the dense output: upcycling is not function-preserving under it.
 * `logits` [E]; equal logits go to the lower index first. F64.
 * @throws ModelError as `gateTopKRenormalized`.
 */
export function gateTopK(logits: ArrayLike<number>, k: number): Routing {
  const experts = topK(logits, k)
  const highest = logits[experts[0]!]!
  let sum = 0
  for (let expert = 0; expert < logits.length; expert++) sum += Math.exp(logits[expert]! - highest)
  return { experts, weights: experts.map((expert) => Math.exp(logits[expert]! - highest) / sum) }
}

/** The indices of the k largest logits, largest first. */
function topK(logits: ArrayLike<number>, k: number): readonly number[] {
  if (!Number.isInteger(k) || k < 1 || k > logits.length)
    throw new ModelError({
      code: 'bad-top-k',
      message: 'The number of experts per token is out of range',
      expected: `a whole number from 1 to ${logits.length}`,
      received: `${k}`,
    })
  const all = Array.from({ length: logits.length }, (_, expert) => expert)
  const wrong = all.find((expert) => Number.isNaN(logits[expert]) || logits[expert] === Infinity)
  // A stable sort: equal logits stay in index order. (-Infinity - -Infinity is NaN, hence the comparisons.)
  const chosen = all
    .sort((a, b) => Number(logits[b]! > logits[a]!) - Number(logits[b]! < logits[a]!))
    .slice(0, k)
  if (wrong !== undefined || logits[chosen[k - 1]!] === -Infinity)
    throw new ModelError({
      code: 'bad-logits',
      message: 'The router gives logits that no gate can use',
      expected: `finite logits, or -Infinity for masked experts, with at least ${k} finite`,
      received: Array.from(logits).join(', '),
      next: 'Look for NaN or infinite values in the router and the layers before it.',
    })
  return chosen
}
