import { type Checkpoint, type Expr, numel, type Op, scale } from '@polygraft/tensor'
import type { Ask, Measures, MergeTargets } from './measures.js'
import { type Merge, type MergeOperands, mergeOp, mergeTargets, wideTensor } from './merge-models.js'
import { type PerTensor, perTensorProblems, recordOf, valueFor } from './per-tensor.js'
import { densityProblems } from './problems.js'
import type { Vector } from './sparsify.js'
import { vectorsOf } from './task-arithmetic.js'

export interface SceOptions {
  readonly models: readonly { readonly model: Checkpoint }[]
  /** Share of the elements of each tensor whose variance over the models is not 0 that is selected, the largest first; above 0. Default 1: all. */
  readonly selectTopk?: PerTensor
  /** What of a sum 0 has no sign: 'none' (default) of it is added, or what is 'positive' (mergekit). */
  readonly tie?: 'none' | 'positive'
  /** Where the mean squares of the task vectors sum to less than this, all weigh the same. Default 0; mergekit: 1e-6. */
  readonly leastEnergy?: number
  /** Go on although configs differ. */
  readonly force?: boolean
  /** What `sceTargets` of the same base and options asks for. */
  readonly measured?: Measures
}

/**
 * SCE (Wan et al., FuseChat, arXiv:2408.07990), for each tensor, with tau_t = theta_t - theta_b:
 * select: the elements whose variance over the tau_t is among the largest `selectTopk` of those that have any; the others are 0;
 * calculate: eta_t = |tau_t|^2 / sum_s |tau_s|^2 of what is selected;
 * erase: elements whose sign is not that of sum_t tau_t;
 * theta = theta_b + sum_t eta_t tau_t / sum_t eta_t, both sums over what is left of an element, as in the authors' implementation (and mergekit).
 * Floor(selectTopk * elements) are selected; of equal variances those of lowest index. The target is the base b. dtypes,
 * config and files stay the base's.
 * @throws ModelError "bad-density", "no-models", "missing-measure"; with every differing config, missing tensor, differing shape and
 * non-float tensor.
 */
export function sce(options: SceOptions): Op {
  return mergeOp(sceMerge(options), options.measured)
}

/** What has to be measured before `sce`, in three rounds: variances that are 0, thresholds of variance, norms of what is selected. */
export function sceTargets(base: Checkpoint, options: SceOptions): MergeTargets {
  return mergeTargets(base, sceMerge(options), options.measured)
}

function sceMerge(options: SceOptions): Merge {
  const { models, selectTopk = 1, tie = 'none', leastEnergy = 0, force = false } = options
  return {
    inputs: { models: models.map(({ model }) => model), force },
    problems: (tensors) => perTensorProblems(selectTopk, tensors, densityProblems),
    exprOf(operands, ask) {
      const vectors = selected(operands, valueFor(selectTopk, operands.name), ask)
      const weights = vectors && weightsOf(vectors, leastEnergy, ask)
      if (!vectors || !weights) return undefined
      const args = vectors.map(({ tensor }) => tensor.expr)
      const merged: Expr = {
        op: 'elect',
        args: args.map((arg, t) => scale(weights[t]!, arg)),
        sum: args.length === 1 ? args[0]! : { op: 'add', args },
        weights,
        ...(tie === 'none' ? {} : { zero: tie }),
      }
      return { op: 'add', args: [operands.target, merged] }
    },
    step: (tensors) => ({ op: 'sce', selectTopk: recordOf(selectTopk, tensors), tie, leastEnergy }),
  }
}

function selected(operands: MergeOperands, share: number, ask: Ask): Vector[] | undefined {
  const vectors = vectorsOf(operands)
  if (share === 1 || numel(operands.tensor.shape) === 0) return vectors
  const name = `${operands.name}, variance`
  const variance = wideTensor(operands, varianceOf(vectors.map(({ tensor }) => tensor.expr)))
  const found = ask.statistics(name, variance)
  if (!found) return undefined
  const keep = Math.floor((found.count - found.zeros) * share)
  const bound = ask.threshold(name, { tensor: variance, keep })
  if (!bound) return undefined
  return vectors.map(({ key, tensor }) => ({
    key,
    tensor: { ...tensor, expr: { op: 'keep', arg: tensor.expr, by: variance.expr, ...boundOf(bound) } },
  }))
}

function boundOf({ threshold, tieEnd }: { threshold: number; tieEnd: number }) {
  return { threshold, tieEnd }
}

/** Of the population: mean_t (tau_t - mean)^2. */
function varianceOf(vectors: readonly Expr[]): Expr {
  const mean: Expr = scale(1 / vectors.length, sumOf(vectors))
  const squares = vectors.map((vector): Expr => {
    const deviation: Expr = { op: 'sub', args: [vector, mean] }
    return { op: 'mul', args: [deviation, deviation] }
  })
  return scale(1 / vectors.length, sumOf(squares))
}

function sumOf(args: readonly Expr[]): Expr {
  return args.length === 1 ? args[0]! : { op: 'add', args }
}

/** The shares of the vectors' squares in all of them. */
function weightsOf(vectors: readonly Vector[], least: number, ask: Ask): number[] | undefined {
  const found = vectors.map(({ key, tensor }) => ask.statistics(key, tensor))
  if (found.includes(undefined)) return undefined
  const means = found.map((each) => (each!.count > 0 ? each!.sumSquares / each!.count : 0))
  const sum = means.reduce((total, mean) => total + mean, 0)
  return means.map((mean) => (sum < least || sum === 0 ? 1 / means.length : mean / sum))
}
