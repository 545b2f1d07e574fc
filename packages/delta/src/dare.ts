import { type Op, sourceIds, throwIfAny } from '@polygraft/tensor'
import { type Drop, dropProblems, dropVectors } from './drop.js'
import { type MergeInputs, mergeModels, mergeProblems } from './merge-models.js'
import { lambdaProblems } from './problems.js'
import {
  addScaled,
  lambdasOf,
  lambdasProblems,
  type TaskArithmeticOptions,
  taskVectors,
} from './task-arithmetic.js'
import { addElected } from './ties.js'

export interface DareLinearOptions extends TaskArithmeticOptions, Drop {}

/**
 * DARE with task arithmetic (Yu et al., arXiv:2311.03099): theta_b + sum_t lambda_t m_t tau_t / rho, where
 * tau_t = theta_t - theta_b and m_t ~ Bernoulli(rho) element by element, rho = `density`. The target is the base b; at density 1
 * it is `taskArithmetic`, bit for bit. dtypes, config and files stay the base's.
 * @throws ModelError "bad-density", "bad-seed", and as `taskArithmetic` does.
 */
export function dareLinear(options: DareLinearOptions): Op {
  const { density, seed, force = false } = options
  const models = options.models.map(({ model }) => model)
  const lambdas = lambdasOf(options.models)
  return (base) => {
    throwIfAny([
      ...dropProblems(options),
      ...lambdasProblems(lambdas),
      ...mergeProblems(base, { models, force }),
    ])
    const inputs = { base: sourceIds(base), models: models.map(sourceIds) }
    return mergeModels(
      base,
      models,
      ({ name, target, others }) =>
        addScaled(target, dropVectors(taskVectors(target, others), name, options), lambdas),
      { op: 'dare_linear', inputs, density, seed, lambdas },
    )
  }
}

export interface DareTiesOptions extends MergeInputs, Drop {
  /** Factor lambda of the merged task vector. Default 1. */
  readonly lambda?: number
}

/**
 * DARE with TIES (Yu et al., arXiv:2311.03099): theta_b + lambda tau, where tau is elected and averaged as by `ties` from the
 * m_t tau_t / rho. The random drop stands in for trimming, as in mergekit's `dare_ties`; the paper's experiments trim after
 * it as well: give `drop` to `ties` for that. The target is the base b. dtypes, config and files stay the base's.
 * @throws ModelError "bad-density", "bad-seed", "bad-lambda", "no-models"; with every differing config, missing tensor,
 * differing shape and non-float tensor.
 */
export function dareTies(options: DareTiesOptions): Op {
  const { models, density, seed, lambda = 1 } = options
  return (base) => {
    throwIfAny([...dropProblems(options), ...lambdaProblems(lambda), ...mergeProblems(base, options)])
    const inputs = { base: sourceIds(base), models: models.map(sourceIds) }
    return mergeModels(
      base,
      models,
      ({ name, target, others }) =>
        addElected(target, dropVectors(taskVectors(target, others), name, options), lambda),
      { op: 'dare_ties', inputs, density, seed, lambda },
    )
  }
}
