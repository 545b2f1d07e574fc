import { type Checkpoint, type Expr, numel, type Op, type Problem } from '@polygraft/tensor'
import type { Consensus } from './combine.js'
import type { Ask, Measures, MergeTargets } from './measures.js'
import { type Merge, mergeOp, mergeTargets } from './merge-models.js'
import { type PerTensor, perTensorProblems, recordOf, valueFor } from './per-tensor.js'
import { densityProblems } from './problems.js'
import { rescaled, type Vector } from './sparsify.js'
import { type Preparation, type TaskVectorOptions, vectorMerge } from './task-arithmetic.js'
import type { SparseModel } from './ties.js'

/** A model, its weight, and which of its task vector's elements are kept. */
export interface BreadcrumbsModel extends SparseModel {
  /** Share of the elements of each tensor, the largest, that is dropped: at least 0, below 1. Default 0.01. */
  readonly gamma?: PerTensor
}

export interface BreadcrumbsOptions extends TaskVectorOptions {
  readonly models: readonly BreadcrumbsModel[]
  /** 'l1': scale what is left of each tensor to its L1 norm before (mergekit's `rescale`). Default 'none', as in the paper. */
  readonly rescale?: 'l1' | 'none'
  /** What the targets of the same base and options ask for. */
  readonly measured?: Measures
}

export interface BreadcrumbsTiesOptions extends BreadcrumbsOptions, Consensus {}

/**
 * Model Breadcrumbs (Davari and Belilovsky, arXiv:2312.06795, section 3): theta_b + lambda sum_t w_t m_t tau_t, where the mask m_t is 0 for
 * the largest `gamma` and for the smallest elements of each tensor in magnitude, and 1 for the `density` between them (the paper's beta, the share of
 * the smallest, is 1 - density - gamma). Kept are floor(density * elements), at least one; dropped above them floor(gamma * elements), fewer where
 * not that many are left. Of equal magnitudes those of lowest index rank as larger. dtypes, config and files stay the base's.
 * @throws ModelError "bad-density", "bad-gamma", "missing-measure", and as `taskArithmetic` does.
 */
export function breadcrumbs(options: BreadcrumbsOptions): Op {
  return mergeOp(breadcrumbsMerge(options), options.measured)
}

/** What has to be measured before `breadcrumbs`: two thresholds for each tensor of each task vector. */
export function breadcrumbsTargets(base: Checkpoint, options: BreadcrumbsOptions): MergeTargets {
  return mergeTargets(base, breadcrumbsMerge(options), options.measured)
}

/**
 * Model Breadcrumbs (arXiv:2312.06795) with the sign election and disjoint mean of TIES (arXiv:2306.01708), see `ties`. mergekit's
 * deviations by name: `normalize: false` (it adds the elected up), `tie: 'positive'`, `rescale: 'l1'`. dtypes, config and files stay the base's.
 * @throws ModelError "bad-density", "bad-gamma", "missing-measure", and as `ties` does.
 */
export function breadcrumbsTies(options: BreadcrumbsTiesOptions): Op {
  return mergeOp(breadcrumbsTiesMerge(options), options.measured)
}

/** What has to be measured before `breadcrumbsTies`: two thresholds for each tensor of each task vector. */
export function breadcrumbsTiesTargets(base: Checkpoint, options: BreadcrumbsTiesOptions): MergeTargets {
  return mergeTargets(base, breadcrumbsTiesMerge(options), options.measured)
}

function breadcrumbsMerge(options: BreadcrumbsOptions): Merge {
  return vectorMerge('breadcrumbs', options, { normalize: false, elect: false }, preparation(options))
}

function breadcrumbsTiesMerge(options: BreadcrumbsTiesOptions): Merge {
  return vectorMerge('breadcrumbs_ties', options, { normalize: true, elect: true }, preparation(options))
}

function preparation({ models, rescale = 'none' }: BreadcrumbsOptions): Preparation {
  const densities = models.map(({ density = 1 }) => density)
  const gammas = models.map(({ gamma = 0.01 }) => gamma)
  return {
    prepare(vector, t, name, ask) {
      const kept = between(vector, valueFor(densities[t]!, name), valueFor(gammas[t]!, name), ask)
      return kept && rescaled(vector, kept, rescale, ask)
    },
    problems: (tensors) => [
      ...densities.flatMap((density) => perTensorProblems(density, tensors, densityProblems)),
      ...gammas.flatMap((gamma) => perTensorProblems(gamma, tensors, gammaProblems)),
    ],
    record: (tensors) => ({
      densities: densities.map((density) => recordOf(density, tensors)),
      gammas: gammas.map((gamma) => recordOf(gamma, tensors)),
      rescale,
    }),
  }
}

/** The elements that are among the largest, less those that are among the very largest: x - x is 0, x - 0 is x. */
function between({ key, tensor }: Vector, density: number, gamma: number, ask: Ask): Expr | undefined {
  const elements = numel(tensor.shape)
  if (density === 1 || elements === 0) return tensor.expr
  const keep = Math.max(1, Math.floor(density * elements))
  const outliers = Math.min(Math.floor(gamma * elements), elements - keep)
  const low = ask.threshold(key, { tensor, keep: keep + outliers })
  const high = outliers > 0 ? ask.threshold(`${key}, outliers`, { tensor, keep: outliers }) : undefined
  if (!low || (outliers > 0 && !high)) return undefined
  const wide: Expr = { op: 'keep', arg: tensor.expr, threshold: low.threshold, tieEnd: low.tieEnd }
  if (!high) return wide
  const top: Expr = { op: 'keep', arg: tensor.expr, threshold: high.threshold, tieEnd: high.tieEnd }
  return { op: 'sub', args: [wide, top] }
}

function gammaProblems(gamma: number): Problem[] {
  if (gamma >= 0 && gamma < 1) return []
  return [
    {
      code: 'bad-gamma',
      message: 'gamma is no share of elements that may be dropped',
      expected: 'at least 0, below 1',
      received: `${gamma}`,
    },
  ]
}
