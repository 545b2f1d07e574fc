import type { Checkpoint, Op, Problem } from '@polygraft/tensor'
import { weightsFor } from './combine.js'
import type { MergeTargets } from './measures.js'
import { type Merge, mergeOp, mergeTargets } from './merge-models.js'
import { type SphericalOptions, sphericalMerge } from './nuslerp.js'
import type { Dots } from './span.js'

export interface MultislerpOptions extends SphericalOptions {
  /** Divide the weights by their sum. Default true. */
  readonly normalize?: boolean
}

/** A mean of unit vectors that is shorter than this has no direction. */
const LEAST_NORM = 1e-8

/**
 * Barycentric interpolation on a sphere (mergekit's Multi-SLERP): with unit vectors u_i = x_i / |x_i| and their mean
 * m = sum_i w_i u_i, the result is (sum_i w_i |x_i|) m / |m|. The published recipe then adds, on the tangent space at m, the weighted sum of the
 * tangent vectors u_i - (u_i . m) m / |m|^2, which is always 0. x_i are the tensors, with `fromBase` the task vectors, and the result is then added to
 * the base. Where two opposed vectors cancel they are interpolated linearly; more than two are an error. One model is itself.
 * dtypes, config and files are the target's.
 * @throws ModelError "bad-weight", "zero-weights", "no-models", "missing-measure", "no-direction" with every tensor whose vectors
 * cancel; with every differing config, missing tensor, differing shape and non-float tensor.
 */
export function multislerp(options: MultislerpOptions): Op {
  return mergeOp(multislerpMerge(options), options.measured)
}

/** What has to be measured before `multislerp`: all dot products of the models, for each tensor. */
export function multislerpTargets(base: Checkpoint, options: MultislerpOptions): MergeTargets {
  return mergeTargets(base, multislerpMerge(options), options.measured)
}

function multislerpMerge(options: MultislerpOptions): Merge {
  const { models, normalize = true } = options
  return sphericalMerge(options, {
    op: 'multislerp',
    counts: [1, Number.POSITIVE_INFINITY],
    normalize,
    record: { normalize },
    coefficients(dot, name) {
      const given = weightsFor(models, name)
      const sum = normalize ? given.reduce((total, weight) => total + weight, 0) : 1
      const weights = given.map((weight) => weight / sum)
      return models.length === 1 ? [1] : barycentre(dot, weights)
    },
  })
}

function barycentre(dot: Dots, weights: readonly number[]): readonly number[] | Problem {
  const norms = weights.map((_, i) => Math.sqrt(dot(i, i)))
  const units = weights.map((weight, i) => (norms[i]! > 0 ? weight / norms[i]! : 0))
  if (norms.every((norm) => norm === 0)) return units
  const length = lengthOf(dot, units)
  if (length < LEAST_NORM) return weights.length === 2 ? weights : noDirection()
  const norm = weights.reduce((sum, weight, i) => sum + weight * norms[i]!, 0)
  return units.map((unit) => (unit * norm) / length)
}

/** |sum_i c_i x_i| */
export function lengthOf(dot: Dots, coefficients: readonly number[]): number {
  let sum = 0
  for (const [i, a] of coefficients.entries())
    for (const [j, b] of coefficients.entries()) sum += a * b * dot(i, j)
  return Math.sqrt(Math.max(0, sum))
}

function noDirection(): Problem {
  return {
    code: 'no-direction',
    message: 'The weighted unit vectors cancel, so that their mean has no direction',
    next: 'Use other weights.',
  }
}
