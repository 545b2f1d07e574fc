import { type Expr, type Problem, scale } from '@polygraft/tensor'
import { labelOf } from './merge-models.js'
import { type PerTensor, perTensorProblems, recordOf, valueFor } from './per-tensor.js'
import { lambdaProblems } from './problems.js'

/** A model and its weight in a merge. */
export interface WeightedModel<Model> {
  readonly model: Model
  /** Default 1. */
  readonly weight?: PerTensor
}

/** How signs are elected before vectors are added: by the sign of their sum (mass), or by the number of signs (votes). */
export interface Consensus {
  readonly consensus?: 'sum' | 'count'
  /** Where neither sign wins: nothing is added ('none', the default, as sign(0) = 0 of the paper), or what is above 0 (mergekit). */
  readonly tie?: 'none' | 'positive'
}

/** The weights of models for a tensor. */
export function weightsFor(models: readonly { readonly weight?: PerTensor }[], tensor: string): number[] {
  return models.map(({ weight = 1 }) => valueFor(weight, tensor))
}

/** base + lambda * sum_t w_t vectors_t, the sum first; with `normalize` the w_t divided by their sum. */
export function addSum(
  base: Expr,
  vectors: readonly Expr[],
  weights: readonly number[],
  { lambda, normalize }: { readonly lambda: number; readonly normalize: boolean },
): Expr {
  const sum = normalize ? weights.reduce((total, weight) => total + weight, 0) : 1
  const scaled = vectors.map((vector, t) => scale(weights[t]! / sum, vector))
  const merged: Expr = scaled.length === 1 ? scaled[0]! : { op: 'add', args: scaled }
  return { op: 'add', args: [base, scale(lambda, merged)] }
}

/** base + lambda * the mean (without `normalize` the sum) of those w_t vectors_t that have the elected sign. */
export function addElected(
  base: Expr,
  vectors: readonly Expr[],
  weights: readonly number[],
  options: Consensus & { readonly lambda: number; readonly normalize: boolean },
): Expr {
  const { lambda, normalize, consensus = 'sum', tie = 'none' } = options
  const isPlain = weights.every((weight) => weight === 1)
  const elected: Expr = {
    op: 'elect',
    args: vectors.map((vector, t) => scale(weights[t]!, vector)),
    ...(consensus === 'sum' ? {} : { by: consensus }),
    ...(tie === 'none' ? {} : { zero: tie }),
    ...(!normalize ? { weights: [] } : isPlain ? {} : { weights }),
  }
  return { op: 'add', args: [base, scale(lambda, elected)] }
}

// Weights of which this share is left after cancelling are taken to sum to zero.
const LEAST_SHARE = 1e-9

/** Weights that are not finite; with `normalize` weights that have no mean: for all tensors or by tensor. */
export function weightProblems(
  models: readonly { readonly weight?: PerTensor }[],
  tensors: readonly string[],
  normalize: boolean,
): Problem[] {
  const given = models.map(({ weight = 1 }) => weight)
  const problems = given.flatMap((weight, i) =>
    perTensorProblems(weight, tensors, (value) =>
      lambdaProblems(value, `The weight of ${labelOf(i)}`).map((problem) => ({
        ...problem,
        code: 'bad-weight',
      })),
    ),
  )
  if (problems.length > 0 || !normalize || models.length === 0) return problems
  if (given.every((weight) => typeof weight === 'number')) return sumProblems(given)
  return tensors.flatMap((tensor) =>
    sumProblems(given.map((weight) => valueFor(weight, tensor))).map((problem) => ({ ...problem, tensor })),
  )
}

function sumProblems(weights: readonly number[]): Problem[] {
  const sum = weights.reduce((total, weight) => total + weight, 0)
  const size = weights.reduce((total, weight) => total + Math.abs(weight), 0)
  if (Math.abs(sum) > LEAST_SHARE * size) return []
  return [
    {
      code: 'zero-weights',
      message: 'The weights sum to zero, so that there is no mean',
      expected: 'another sum, or normalize: false',
      received: weights.join(' + '),
    },
  ]
}

/** The weights for provenance. */
export function weightsRecord(
  models: readonly { readonly weight?: PerTensor }[],
  tensors: readonly string[],
) {
  return models.map(({ weight = 1 }) => recordOf(weight, tensors))
}

/** A factor lambda that is not finite. */
export function factorProblems(lambda: PerTensor, tensors: readonly string[], name = 'lambda'): Problem[] {
  return perTensorProblems(lambda, tensors, (value) => lambdaProblems(value, name))
}
