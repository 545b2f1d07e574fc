import type { Checkpoint, Op } from '@polygraft/tensor'
import type { Consensus } from './combine.js'
import type { Measures, MergeTargets } from './measures.js'
import { type Merge, mergeOp, mergeTargets } from './merge-models.js'
import { perTensorProblems, recordOf, valueFor } from './per-tensor.js'
import { densityProblems } from './problems.js'
import { dropped, type Rescale, seedProblems } from './sparsify.js'
import { type TaskVectorOptions, vectorMerge } from './task-arithmetic.js'
import type { SparseModel } from './ties.js'

export interface DareLinearOptions extends TaskVectorOptions {
  /** `density` is the probability rho that an element is kept (1 - p of the paper). */
  readonly models: readonly SparseModel[]
  /** Names the draws, together with tensor, model and element. A safe integer. */
  readonly seed: number
  /** 'probability' (default): by 1 / rho, as in the paper; 'l1': to the L1 norm before the drop, as in mergekit. */
  readonly rescale?: Rescale
  /** What `dareLinearTargets` or `dareTiesTargets` of the same base and options asks for: norms, with `rescale: 'l1'`. */
  readonly measured?: Measures
}

export interface DareTiesOptions extends DareLinearOptions, Consensus {}

/**
 * DARE with task arithmetic (Yu et al., arXiv:2311.03099): theta_b + lambda sum_t w_t m_t tau_t / rho_t, where
 * tau_t = theta_t - theta_b and m_t ~ Bernoulli(rho_t) element by element, rho_t = `density`. The target is the base b; at density 1
 * it is `taskArithmetic`, bit for bit. dtypes, config and files stay the base's.
 * @throws ModelError "bad-density", "bad-seed", "missing-measure", and as `taskArithmetic` does.
 */
export function dareLinear(options: DareLinearOptions): Op {
  return mergeOp(dareLinearMerge(options), options.measured)
}

/** What has to be measured before `dareLinear`: L1 norms with `rescale: 'l1'`, else nothing. */
export function dareLinearTargets(base: Checkpoint, options: DareLinearOptions): MergeTargets {
  return mergeTargets(base, dareLinearMerge(options), options.measured)
}

/**
 * DARE with TIES (Yu et al., arXiv:2311.03099): theta_b + lambda tau, where tau is elected and averaged as by `ties` from the
 * w_t m_t tau_t / rho_t. The random drop stands in for trimming, as in mergekit's `dare_ties`; the paper's experiments trim after
 * it as well: give `drop` to `ties` for that. The target is the base b. mergekit's deviations by name: `normalize: false` (it adds the
 * elected up), `rescale: 'l1'`, `tie: 'positive'`. dtypes, config and files stay the base's.
 * @throws ModelError "bad-density", "bad-seed", "missing-measure", and as `ties` does.
 */
export function dareTies(options: DareTiesOptions): Op {
  return mergeOp(dareTiesMerge(options), options.measured)
}

/** What has to be measured before `dareTies`: L1 norms with `rescale: 'l1'`, else nothing. */
export function dareTiesTargets(base: Checkpoint, options: DareTiesOptions): MergeTargets {
  return mergeTargets(base, dareTiesMerge(options), options.measured)
}

function dareLinearMerge(options: DareLinearOptions): Merge {
  return vectorMerge('dare_linear', options, { normalize: false, elect: false }, preparation(options))
}

function dareTiesMerge(options: DareTiesOptions): Merge {
  return vectorMerge('dare_ties', options, { normalize: true, elect: true }, preparation(options))
}

function preparation({ models, seed, rescale = 'probability' }: DareLinearOptions) {
  const densities = models.map(({ density = 1 }) => density)
  return {
    prepare: (vector, t, name, ask) => dropped(vector, valueFor(densities[t]!, name), seed, rescale, ask),
    problems: (tensors) => [
      ...densities.flatMap((density) => perTensorProblems(density, tensors, densityProblems)),
      ...seedProblems(seed),
    ],
    record: (tensors) => ({
      densities: densities.map((density) => recordOf(density, tensors)),
      seed,
      rescale,
    }),
  } satisfies Parameters<typeof vectorMerge>[3]
}
