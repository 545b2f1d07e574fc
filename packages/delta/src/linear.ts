import { type Checkpoint, type Op, scale } from '@polygraft/tensor'
import { type WeightedModel, weightProblems, weightsFor, weightsRecord } from './combine.js'
import { type Merge, mergeOp } from './merge-models.js'

export interface LinearOptions {
  /** All that are averaged; the target is one of them only where it is listed. */
  readonly models: readonly WeightedModel<Checkpoint>[]
  /** Divide the weights by their sum. Default true. */
  readonly normalize?: boolean
  /** Go on although configs differ. */
  readonly force?: boolean
}

/**
 * Weighted mean: theta = sum_i w_i theta_i / sum_i w_i, or without the division (model soups, Wortsman et al.,
 * arXiv:2203.05482, section 2). Left fold in F32, in the order of `models`. dtypes, config and files are the target's.
 * @throws ModelError "bad-weight", "zero-weights", "no-models"; with every differing config, missing tensor, differing shape
 * and non-float tensor.
 */
export function linear(options: LinearOptions): Op {
  return mergeOp(linearMerge(options))
}

function linearMerge({ models, normalize = true, force = false }: LinearOptions): Merge {
  return {
    inputs: { models: models.map(({ model }) => model), force },
    hasBase: false,
    problems: (tensors) => weightProblems(models, tensors, normalize),
    exprOf({ name, others }) {
      const weights = weightsFor(models, name)
      const sum = normalize ? weights.reduce((total, weight) => total + weight, 0) : 1
      const scaled = others.map((expr, i) => scale(weights[i]! / sum, expr))
      return scaled.length === 1 ? scaled[0]! : { op: 'add', args: scaled }
    },
    step: (tensors) => ({ op: 'linear', weights: weightsRecord(models, tensors), normalize }),
  }
}
