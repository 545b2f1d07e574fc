import {
  type Checkpoint,
  type Expr,
  numel,
  type Op,
  type Problem,
  scale,
  sourceIds,
  type Tensor,
  throwIfAny,
} from '@polygraft/tensor'
import { type Drop, dropProblems, dropVectors } from './drop.js'
import {
  type MergeInputs,
  type MergeOperands,
  mergeModels,
  mergeOperands,
  mergeProblems,
  vectorName,
} from './merge-models.js'
import { densityProblems, lambdaProblems } from './problems.js'
import { taskVectors } from './task-arithmetic.js'

/** What is trimmed: the task vectors of `models`, to their largest elements. */
export interface TrimOptions extends MergeInputs {
  /** Share of the elements of each tensor of each task vector that is kept; above 0, at most 1. */
  readonly density: number
  /** Drop elements at random and rescale the rest before trimming (DARE). */
  readonly drop?: Drop
}

/** A task vector's tensor, and how many of its elements are kept: what `measureThresholds` of `@polygraft/engine` takes. */
export interface TrimTarget {
  readonly tensor: Tensor
  readonly keep: number
}

/** What it gives: the elements above `threshold` in magnitude are kept, and those at it before element `tieEnd`. */
export interface TrimThreshold {
  readonly threshold: number
  readonly tieEnd: number
}

export interface TiesOptions extends TrimOptions {
  /** Measured of `trimTargets` of the same base and options. */
  readonly thresholds: ReadonlyMap<string, TrimThreshold>
  /** Factor lambda of the merged task vector. Default 1. */
  readonly lambda?: number
}

/**
 * What has to be measured before `ties`: a threshold for each tensor of each task vector; none at density 1. The sources
 * are those of the base and all of the models. Kept are floor(density * elements), at least one.
 * @throws ModelError as `ties` does.
 */
export function trimTargets(base: Checkpoint, options: TrimOptions): Map<string, TrimTarget> {
  throwIfAny([...trimProblems(options), ...mergeProblems(base, options)])
  const { models, density } = options
  if (density === 1) return new Map()
  const targets = mergeOperands(base, models).flatMap((operands) => {
    const {
      name,
      tensor: { dtype, shape },
    } = operands
    return vectorsOf(operands, options).map((expr, t): [string, TrimTarget] => {
      // The dtype in which the merge will compute.
      const tensor: Tensor = { dtype: dtype === 'F64' ? 'F64' : 'F32', shape, expr }
      return [vectorName(name, t), { tensor, keep: Math.max(1, Math.floor(density * numel(shape))) }]
    })
  })
  return new Map(targets)
}

/**
 * TIES (Yadav et al., arXiv:2306.01708, algorithm 1), for each tensor:
 * trim: t_t = tau_t = theta_t - theta_b where it is among the largest `density` in magnitude, else 0;
 * elect: gamma = sign(sum_t t_t), element by element;
 * merge: tau = mean of the t_t with sign gamma, 0 where gamma is 0; theta = theta_b + lambda tau.
 * The target is the base b. The paper ranks by magnitude within a whole task vector; here each tensor is ranked alone, as in
 * mergekit, so that no layer loses all that it learned. Of equal magnitudes those of lowest index are kept. NaN and infinities
 * pass through to the output. With `drop`, the tau_t are dropped and rescaled first (DARE, arXiv:2311.03099). dtypes, config and files stay the base's.
 * @throws ModelError "bad-density", "bad-seed", "bad-lambda", "no-models", "missing-threshold"; with every differing config, missing
 * tensor, differing shape and non-float tensor.
 */
export function ties(options: TiesOptions): Op {
  const { models, density, drop, lambda = 1 } = options
  return (base) => {
    throwIfAny([...trimProblems(options), ...lambdaProblems(lambda), ...mergeProblems(base, options)])
    throwIfAny(thresholdProblems(base, options))
    const inputs = { base: sourceIds(base), models: models.map(sourceIds) }
    return mergeModels(
      base,
      models,
      (operands) =>
        addElected(operands.target, trim(operands.name, vectorsOf(operands, options), options), lambda),
      { op: 'ties', inputs, density, lambda, ...(drop ? { drop: { ...drop } } : {}) },
    )
  }
}

/** base + lambda * the mean of those vectors that have the sign of their sum. */
export function addElected(base: Expr, vectors: readonly Expr[], lambda: number): Expr {
  return { op: 'add', args: [base, scale(lambda, { op: 'elect', args: vectors })] }
}

/** The task vectors' tensors, with what is to be dropped dropped. */
function vectorsOf({ name, target, others }: MergeOperands, { drop }: TrimOptions): readonly Expr[] {
  const vectors = taskVectors(target, others)
  return drop ? dropVectors(vectors, name, drop) : vectors
}

function trim(name: string, vectors: readonly Expr[], { density, thresholds }: TiesOptions): readonly Expr[] {
  if (density === 1) return vectors
  return vectors.map((arg, t) => {
    const { threshold, tieEnd } = thresholds.get(vectorName(name, t))!
    return { op: 'keep', arg, threshold, tieEnd }
  })
}

function trimProblems({ density, drop }: TrimOptions): Problem[] {
  return [...densityProblems(density), ...(drop ? dropProblems(drop) : [])]
}

function thresholdProblems(base: Checkpoint, options: TiesOptions): Problem[] {
  const missing = [...trimTargets(base, options).keys()].filter((key) => !options.thresholds.has(key))
  return missing.map((key) => ({
    code: 'missing-threshold',
    message: 'A tensor to be trimmed has no threshold',
    tensor: key,
    next: 'Measure trimTargets of the same base and options with measureThresholds.',
  }))
}
