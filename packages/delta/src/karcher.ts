import type { Checkpoint, Op, Problem } from '@polygraft/tensor'
import { weightsFor } from './combine.js'
import type { MergeTargets } from './measures.js'
import { type Merge, mergeOp, mergeTargets } from './merge-models.js'
import { lengthOf } from './multislerp.js'
import { type SphericalOptions, sphericalMerge } from './nuslerp.js'
import type { Dots } from './span.js'

export interface KarcherOptions extends Omit<SphericalOptions, 'fromBase'> {
  /** Default 10. */
  readonly maxIterations?: number
  /** Stops when a step is shorter than this, in radians; vectors of this norm or less have no direction. Default 1e-5. */
  readonly tolerance?: number
}

/**
 * Karcher mean on the sphere (arXiv:2603.04972): the point m whose squared geodesic distances to the unit vectors
 * u_i = x_i / |x_i|, weighted, have the least sum; times the mean norm sum_i w_i |x_i|. Iterated from the normalised mean:
 * v = sum_i w_i theta_i / sin theta_i (u_i - cos theta_i m), m <- cos|v| m + sin|v| v / |v|, cos theta_i = u_i . m. m lies in the span of the
 * x_i, so that the iteration runs on its coefficients, in F64, by their dot products. A u_i opposed to m has no shortest way there
 * and is passed over. Weights, default 1 each, are divided by their sum. All 0 is 0. dtypes, config and files are the target's.
 * @throws ModelError "bad-weight", "zero-weights", "no-models", "bad-count", "bad-tolerance", "missing-measure"; with every differing
 * config, missing tensor, differing shape and non-float tensor.
 */
export function karcher(options: KarcherOptions): Op {
  return mergeOp(karcherMerge(options), options.measured)
}

/** What has to be measured before `karcher`: all dot products of the models, for each tensor. */
export function karcherTargets(base: Checkpoint, options: KarcherOptions): MergeTargets {
  return mergeTargets(base, karcherMerge(options), options.measured)
}

function karcherMerge({ maxIterations = 10, tolerance = 1e-5, ...options }: KarcherOptions): Merge {
  const { models } = options
  const merge = sphericalMerge(options, {
    op: 'karcher',
    counts: [1, Number.POSITIVE_INFINITY],
    normalize: true,
    record: { maxIterations, tolerance },
    coefficients(dot, name) {
      const given = weightsFor(models, name)
      const sum = given.reduce((total, weight) => total + weight, 0)
      const weights = given.map((weight) => weight / sum)
      return models.length === 1 ? [1] : meanOf(dot, weights, { maxIterations, tolerance })
    },
  })
  return {
    ...merge,
    problems: (tensors) => [...merge.problems(tensors), ...limitProblems({ maxIterations, tolerance })],
  }
}

interface Limits {
  readonly maxIterations: number
  readonly tolerance: number
}

/** The mean's coefficients for the x_i. */
function meanOf(dot: Dots, weights: readonly number[], { maxIterations, tolerance }: Limits): number[] {
  const norms = weights.map((_, i) => Math.sqrt(dot(i, i)))
  const valid = [...norms.keys()].filter((i) => norms[i]! > tolerance)
  if (valid.length === 0) return norms.map(() => 0)
  const total = valid.reduce((sum, i) => sum + weights[i]!, 0)
  const shares = norms.map((_, i) => (valid.includes(i) ? weights[i]! / total : 0))
  const unit: Dots = (i, j) => dot(i, j) / norms[i]! / norms[j]!
  // From here on coefficients are those of the unit vectors u_i, 0 for what has no direction.
  const lengthOfUnits = (c: readonly number[]) => lengthOf((i, j) => (c[i] && c[j] ? unit(i, j) : 0), c)
  let mean = scaleBy(shares, 1 / lengthOfUnits(shares))
  if (lengthOfUnits(shares) < tolerance) mean = norms.map((_, i) => (i === valid[0] ? 1 : 0))
  for (let round = 0; round < maxIterations; round++) {
    const step = stepOf(mean, shares, valid, unit, tolerance)
    const length = lengthOfUnits(step)
    if (length < tolerance) break
    const moved = mean.map((c, i) => Math.cos(length) * c + (Math.sin(length) / length) * step[i]!)
    mean = scaleBy(moved, 1 / lengthOfUnits(moved))
  }
  const norm = weights.reduce((sum, weight, i) => sum + weight * norms[i]!, 0)
  return mean.map((c, i) => (c === 0 ? 0 : (c * norm) / norms[i]!))
}

/** v of the iteration: the mean of what leads from m to the u_i. */
function stepOf(
  mean: readonly number[],
  shares: readonly number[],
  valid: readonly number[],
  unit: Dots,
  tolerance: number,
): number[] {
  const step = mean.map(() => 0)
  let back = 0
  for (const i of valid) {
    const cos = valid.reduce((sum, j) => sum + mean[j]! * unit(i, j), 0)
    const theta = Math.acos(Math.max(-1, Math.min(1, cos)))
    if (theta < tolerance || Math.PI - theta < tolerance) continue
    const by = (shares[i]! * theta) / Math.sin(theta)
    step[i]! += by
    back += by * cos
  }
  return step.map((c, i) => c - back * mean[i]!)
}

function scaleBy(values: readonly number[], by: number): number[] {
  return values.map((value) => value * by)
}

function limitProblems({ maxIterations, tolerance }: Limits): Problem[] {
  const problems: Problem[] = []
  if (!(Number.isSafeInteger(maxIterations) && maxIterations >= 0))
    problems.push({
      code: 'bad-count',
      message: 'The number of iterations is not whole',
      expected: '0 or more',
      received: `${maxIterations}`,
    })
  if (!(tolerance > 0 && tolerance < 1))
    problems.push({
      code: 'bad-tolerance',
      message: 'The tolerance is no small angle',
      expected: 'above 0 and below 1',
      received: `${tolerance}`,
    })
  return problems
}
