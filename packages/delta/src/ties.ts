import type { Checkpoint, Op } from '@polygraft/tensor'
import type { Consensus, WeightedModel } from './combine.js'
import type { Measures, MergeTargets } from './measures.js'
import { type Merge, mergeOp, mergeTargets } from './merge-models.js'
import { type PerTensor, perTensorProblems, recordOf, valueFor } from './per-tensor.js'
import { densityProblems } from './problems.js'
import { type Drop, dropProblems, dropped, type Rescale, rescaled, trimmed } from './sparsify.js'
import { type TaskVectorOptions, vectorMerge } from './task-arithmetic.js'

/** A model, its weight, and the share of its task vector that is kept. */
export interface SparseModel extends WeightedModel<Checkpoint> {
  /** Share of the elements of each tensor of the task vector that is kept; above 0, at most 1. Default 1. */
  readonly density?: PerTensor
}

export interface TiesOptions extends TaskVectorOptions, Consensus {
  readonly models: readonly SparseModel[]
  /** Drop elements at random and rescale the rest before trimming (DARE). */
  readonly drop?: Drop & { readonly rescale?: Rescale }
  /** 'l1': scale what is left of each tensor to its L1 norm before (mergekit's `rescale`). Default 'none', as in the paper. */
  readonly rescale?: 'l1' | 'none'
  /** What `tiesTargets` of the same base and options asks for. */
  readonly measured?: Measures
}

/**
 * TIES (Yadav et al., arXiv:2306.01708, algorithm 1), for each tensor:
 * trim: t_t = w_t tau_t, tau_t = theta_t - theta_b, where it is among the largest `density` in magnitude, else 0;
 * elect: gamma = sign(sum_t t_t), element by element;
 * merge: tau = mean of the t_t with sign gamma, 0 where gamma is 0; theta = theta_b + lambda tau.
 * The target is the base b. The mean is weighted: sum of the agreeing t_t by the sum of their w_t; with all weights 1, the default,
 * it is the paper's. The paper ranks by magnitude within a whole task vector; here each tensor is ranked alone, as in
 * mergekit, so that no layer loses all that it learned. Of equal magnitudes those of lowest index are kept. NaN and infinities
 * pass through to the output. With `drop`, the tau_t are dropped and rescaled first (DARE, arXiv:2311.03099). mergekit's deviations by
 * name: `tie: 'positive'` (it takes a sum of 0 for positive), `normalize: false`, `rescale: 'l1'`. dtypes, config and files stay the base's.
 * @throws ModelError "bad-density", "bad-seed", "bad-weight", "bad-lambda", "zero-weights", "no-models", "missing-measure"; with
 * every differing config, missing tensor, differing shape and non-float tensor.
 */
export function ties(options: TiesOptions): Op {
  return mergeOp(tiesMerge(options), options.measured)
}

/**
 * What has to be measured before `ties` and is not in `options.measured`: a threshold for each tensor of each task vector that is trimmed.
 * @throws ModelError as `ties` does.
 */
export function tiesTargets(base: Checkpoint, options: TiesOptions): MergeTargets {
  return mergeTargets(base, tiesMerge(options), options.measured)
}

function tiesMerge(options: TiesOptions): Merge {
  const { models, drop, rescale = 'none' } = options
  const densities = models.map(({ density = 1 }) => density)
  const { rescale: dropRescale = 'probability' } = drop ?? {}
  return vectorMerge(
    'ties',
    options,
    { normalize: true, elect: true },
    {
      prepare(vector, t, name, ask) {
        const left = drop
          ? dropped(vector, valueFor(drop.density, name), drop.seed, dropRescale, ask)
          : vector.tensor.expr
        if (!left) return undefined
        const before = { ...vector, tensor: { ...vector.tensor, expr: left } }
        const kept = trimmed(before, valueFor(densities[t]!, name), ask)
        return kept && rescaled(before, kept, rescale, ask)
      },
      problems: (tensors) => [
        ...densities.flatMap((density) => perTensorProblems(density, tensors, densityProblems)),
        ...(drop ? dropProblems(drop, tensors) : []),
      ],
      record: (tensors) => ({
        densities: densities.map((density) => recordOf(density, tensors)),
        rescale,
        ...(drop
          ? { drop: { seed: drop.seed, density: recordOf(drop.density, tensors), rescale: dropRescale } }
          : {}),
      }),
    },
  )
}
