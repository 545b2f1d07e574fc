import { type Checkpoint, type Op, type Problem, scale, sourceIds, throwIfAny } from '@polygraft/tensor'
import { labelOf, mergeModels, mergeProblems } from './merge-models.js'
import { lambdaProblems } from './problems.js'

export interface LinearOptions {
  /** The target's own weight w_0. */
  readonly weight: number
  readonly models: readonly { readonly model: Checkpoint; readonly weight: number }[]
  /** Divide the weights by their sum. Default true. */
  readonly normalize?: boolean
  /** Go on although configs differ. */
  readonly force?: boolean
}

// Weights of which this share is left after cancelling are taken to sum to zero.
const LEAST_SHARE = 1e-9

/**
 * Weighted mean: theta = sum_i w_i theta_i / sum_i w_i, or without the division (model soups, Wortsman et al.,
 * arXiv:2203.05482, section 2). Left fold in F32, the target first. dtypes, config and files stay the target's.
 * @throws ModelError "bad-weight", "zero-weights", "no-models"; with every differing config, missing tensor, differing shape
 * and non-float tensor.
 */
export function linear(options: LinearOptions): Op {
  const { normalize = true, force = false } = options
  const models = options.models.map(({ model }) => model)
  const given = [options.weight, ...options.models.map(({ weight }) => weight)]
  return (target) => {
    throwIfAny([...weightProblems(given, normalize), ...mergeProblems(target, { models, force })])
    const sum = given.reduce((total, weight) => total + weight, 0)
    const weights = normalize ? given.map((weight) => weight / sum) : given
    const inputs = { target: sourceIds(target), models: models.map(sourceIds) }
    return mergeModels(
      target,
      models,
      ({ target, others }) => ({
        op: 'add',
        args: [target, ...others].map((expr, i) => scale(weights[i]!, expr)),
      }),
      { op: 'linear', inputs, weights: given, normalize },
    )
  }
}

function weightProblems(weights: readonly number[], normalize: boolean): Problem[] {
  const problems = weights.flatMap((weight, i) =>
    lambdaProblems(weight, `The weight of ${i === 0 ? 'the target' : labelOf(i - 1)}`).map((problem) => ({
      ...problem,
      code: 'bad-weight',
    })),
  )
  const sum = weights.reduce((total, weight) => total + weight, 0)
  const size = weights.reduce((total, weight) => total + Math.abs(weight), 0)
  if (problems.length > 0 || !normalize || Math.abs(sum) > LEAST_SHARE * size) return problems
  return [
    {
      code: 'zero-weights',
      message: 'The weights sum to zero, so that there is no mean',
      expected: 'another sum, or normalize: false',
      received: weights.join(' + '),
    },
  ]
}
