import {
  type Checkpoint,
  type Expr,
  type Op,
  type Problem,
  scale,
  sourceIds,
  throwIfAny,
} from '@polygraft/tensor'
import { labelOf, mergeModels, mergeProblems } from './merge-models.js'
import { lambdaProblems } from './problems.js'

/** A fine-tuned model, and the factor lambda of its task vector. */
export interface ScaledModel {
  readonly model: Checkpoint
  /** Default 1. */
  readonly lambda?: number
}

export interface TaskArithmeticOptions {
  readonly models: readonly ScaledModel[]
  /** Go on although configs differ. */
  readonly force?: boolean
}

/**
 * theta_b + sum_t lambda_t tau_t with tau_t = theta_t - theta_b (task arithmetic, Ilharco et al., arXiv:2212.04089, section 2).
 * The target is the base b. The sum of the scaled task vectors is a left fold in F32 and is then added to the base. dtypes,
 * config and files stay the base's; rows of vocabularies go together by id.
 * @throws ModelError "bad-lambda", "no-models"; with every differing config, missing tensor, differing shape and non-float
 * tensor.
 */
export function taskArithmetic({ models: scaled, force = false }: TaskArithmeticOptions): Op {
  const models = scaled.map(({ model }) => model)
  const lambdas = lambdasOf(scaled)
  return (base) => {
    throwIfAny([...lambdasProblems(lambdas), ...mergeProblems(base, { models, force })])
    const inputs = { base: sourceIds(base), models: models.map(sourceIds) }
    return mergeModels(
      base,
      models,
      ({ target, others }) => addScaled(target, taskVectors(target, others), lambdas),
      { op: 'task_arithmetic', inputs, lambdas },
    )
  }
}

/** theta_t - theta_b for each model. */
export function taskVectors(base: Expr, others: readonly Expr[]): Expr[] {
  return others.map((expr) => ({ op: 'sub', args: [expr, base] }))
}

/** base + sum_t lambda_t vectors_t, the sum first. */
export function addScaled(base: Expr, vectors: readonly Expr[], lambdas: readonly number[]): Expr {
  const scaled = vectors.map((vector, t) => scale(lambdas[t]!, vector))
  return { op: 'add', args: [base, scaled.length === 1 ? scaled[0]! : { op: 'add', args: scaled }] }
}

export function lambdasOf(models: readonly ScaledModel[]): number[] {
  return models.map(({ lambda = 1 }) => lambda)
}

export function lambdasProblems(lambdas: readonly number[]): Problem[] {
  return lambdas.flatMap((lambda, i) => lambdaProblems(lambda, `lambda of ${labelOf(i)}`))
}
