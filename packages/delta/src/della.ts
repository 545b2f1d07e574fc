import { type Checkpoint, type Expr, literal, numel, type Op, type Problem, scale } from '@polygraft/tensor'
import type { Consensus } from './combine.js'
import type { Ask, Measures, MergeTargets } from './measures.js'
import { type Merge, mergeOp, mergeTargets } from './merge-models.js'
import { type PerTensor, perTensorProblems, recordOf, valueFor } from './per-tensor.js'
import { densityProblems } from './problems.js'
import { type Rescale, rescaled, seedProblems, type Vector } from './sparsify.js'
import { type Preparation, type TaskVectorOptions, vectorMerge } from './task-arithmetic.js'
import type { SparseModel } from './ties.js'

/** A model, its weight, and how probable it is that elements of its task vector are kept. */
export interface DellaModel extends SparseModel {
  /**
   * Half the spread of the probabilities: from density - epsilon for the smallest element of a row to density + epsilon for the largest. At least 0, and both
   * ends above 0 and below 1, unless density is 1. Default 0.15. (The paper's epsilon is the whole spread.)
   */
  readonly epsilon?: PerTensor
}

export interface DellaLinearOptions extends TaskVectorOptions {
  readonly models: readonly DellaModel[]
  /** Names the draws, together with tensor, model and element. A safe integer. */
  readonly seed: number
  /** 'probability' (default): each element by the inverse of its own, as in the paper; 'l1': to the tensor's L1 norm before, as in mergekit. */
  readonly rescale?: Rescale
  /** What the targets of the same base and options ask for: norms, with `rescale: 'l1'`. */
  readonly measured?: Measures
}

export interface DellaOptions extends DellaLinearOptions, Consensus {}

/**
 * DELLA without election (MAGPRUNE, Deep et al., arXiv:2406.11617, section 3.1): theta_b + lambda sum_t w_t m_t tau_t / p_t, where tau_t = theta_t - theta_b and the
 * mask m_t ~ Bernoulli(p_t) element by element. p_t grows linearly with the element's rank by magnitude in its row of the matrix (a
 * vector is one row): from density - epsilon for the smallest to density + epsilon for the largest, density where the row has one element. Of equal magnitudes that of
 * lowest index ranks highest. Masks of tensors and models are independent, and do not depend on tiles or threads; probabilities are met within 2^-23. Density 1 keeps
 * all. The target is the base b; dtypes, config and files stay the base's.
 * @throws ModelError "bad-density", "bad-epsilon", "bad-seed", "missing-measure", and as `taskArithmetic` does.
 */
export function dellaLinear(options: DellaLinearOptions): Op {
  return mergeOp(dellaLinearMerge(options), options.measured)
}

/** What has to be measured before `dellaLinear`: L1 norms with `rescale: 'l1'`, else nothing. */
export function dellaLinearTargets(base: Checkpoint, options: DellaLinearOptions): MergeTargets {
  return mergeTargets(base, dellaLinearMerge(options), options.measured)
}

/**
 * DELLA (Deep et al., arXiv:2406.11617): drop as `dellaLinear` does, elect signs and take the mean of those that agree as `ties` does (steps 1, 2 and 3 of section 3),
 * times lambda. mergekit's deviations by name: `rescale: 'l1'`, `tie: 'positive'`. dtypes, config and files stay the base's.
 * @throws ModelError "bad-density", "bad-epsilon", "bad-seed", "missing-measure", and as `ties` does.
 */
export function della(options: DellaOptions): Op {
  return mergeOp(dellaMerge(options), options.measured)
}

/** What has to be measured before `della`: L1 norms with `rescale: 'l1'`, else nothing. */
export function dellaTargets(base: Checkpoint, options: DellaOptions): MergeTargets {
  return mergeTargets(base, dellaMerge(options), options.measured)
}

function dellaLinearMerge(options: DellaLinearOptions): Merge {
  return vectorMerge('della_linear', options, { normalize: false, elect: false }, preparation(options))
}

function dellaMerge(options: DellaOptions): Merge {
  return vectorMerge('della', options, { normalize: true, elect: true }, preparation(options))
}

function preparation({ models, seed, rescale = 'probability' }: DellaLinearOptions): Preparation {
  const densities = models.map(({ density = 1 }) => density)
  const epsilons = models.map(({ epsilon = 0.15 }) => epsilon)
  return {
    prepare(vector, t, name, ask) {
      const range = { density: valueFor(densities[t]!, name), epsilon: valueFor(epsilons[t]!, name) }
      return pruned(vector, range, seed, rescale, ask)
    },
    problems: (tensors) => [
      ...densities.flatMap((density) => perTensorProblems(density, tensors, densityProblems)),
      ...densities.flatMap((density, t) => epsilonProblems(density, epsilons[t]!, tensors)),
      ...seedProblems(seed),
    ],
    record: (tensors) => ({
      densities: densities.map((density) => recordOf(density, tensors)),
      epsilons: epsilons.map((epsilon) => recordOf(epsilon, tensors)),
      seed,
      rescale,
    }),
  }
}

/** The range of the probabilities that elements are kept. */
interface KeepRange {
  readonly density: number
  readonly epsilon: number
}

/** m tau with m ~ Bernoulli(p), p linear in the rank within the row; with `rescale` 'probability' m tau / p. */
function pruned(
  vector: Vector,
  { density, epsilon }: KeepRange,
  seed: number,
  rescale: Rescale,
  ask: Ask,
): Expr | undefined {
  const { key, tensor } = vector
  const elements = numel(tensor.shape)
  if (density === 1 || elements === 0) return tensor.expr
  const width = tensor.shape.at(-1) ?? 1
  const constant = (value: number): Expr => {
    return { op: 'spread', arg: literal(Float32Array.of(value)), count: 1, each: elements, times: 1 }
  }
  const ranks: Expr = { op: 'ranks', arg: tensor.expr, width }
  const span: Expr = scale(width > 1 ? (2 * epsilon) / (width - 1) : 0, ranks)
  const least = width > 1 ? density - epsilon : density
  const probability: Expr = { op: 'add', args: [span, constant(least)] }
  // A draw of [-1/2, 1/2) is below p - 1/2 where p + 1/2 - draw is above 1; all of these are positive.
  const draw: Expr = { op: 'random', distribution: 'uniform', scale: 0.5, seed, name: key }
  const by: Expr = { op: 'sub', args: [{ op: 'add', args: [probability, constant(0.5)] }, draw] }
  const factor: Expr =
    rescale === 'probability' ? { op: 'ratio', num: constant(1), den: probability, guard: 0 } : constant(1)
  // A product with 0, so that NaN stays and a dropped infinity becomes one.
  const kept: Expr = {
    op: 'mul',
    args: [{ op: 'keep', arg: factor, by, threshold: 1, tieEnd: 0 }, tensor.expr],
  }
  return rescale === 'probability' ? kept : rescaled(vector, kept, rescale, ask)
}

/** Densities and epsilons of one model with which some probability is none, or certain. */
function epsilonProblems(density: PerTensor, epsilon: PerTensor, tensors: readonly string[]): Problem[] {
  const check = (rho: number, eps: number): Problem[] => {
    const fits = eps >= 0 && rho - eps > 0 && rho + eps < 1
    // A density that is wrong by itself is told as that.
    if (fits || rho === 1 || densityProblems(rho).length > 0) return []
    return [
      {
        code: 'bad-epsilon',
        message:
          'density - epsilon to density + epsilon are no probabilities of elements that may be kept or dropped',
        expected: 'epsilon at least 0, density - epsilon above 0, density + epsilon below 1',
        received: `density ${rho}, epsilon ${eps}`,
      },
    ]
  }
  if (typeof density === 'number' && typeof epsilon === 'number') return check(density, epsilon)
  return tensors.flatMap((tensor) =>
    check(valueFor(density, tensor), valueFor(epsilon, tensor)).map((problem) => ({ ...problem, tensor })),
  )
}
