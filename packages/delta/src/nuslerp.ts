import type { Checkpoint, Op } from '@polygraft/tensor'
import { type WeightedModel, weightProblems, weightsFor, weightsRecord } from './combine.js'
import type { Measures, MergeTargets } from './measures.js'
import { type Merge, type MergeOperands, mergeOp, mergeTargets, wideTensor } from './merge-models.js'
import { arc, cosine, type Dots, type Grain, spanned } from './span.js'
import { vectorsOf } from './task-arithmetic.js'

/** What interpolations of several models on a sphere have in common. */
export interface SphericalOptions {
  readonly models: readonly WeightedModel<Checkpoint>[]
  /** Interpolate task vectors of the target, and add the result to it. Default false: the target gives dtypes, config and files only. */
  readonly fromBase?: boolean
  /** Go on although configs differ. */
  readonly force?: boolean
  /** What the method's targets of the same base and options ask for. */
  readonly measured?: Measures
}

export interface NuslerpOptions extends SphericalOptions {
  /** Which parts of a matrix are interpolated each for itself. Default 'tensor': none. */
  readonly grain?: Grain
}

/** Where 1 - cos^2 is at most this, two vectors are parallel or opposed. */
const COLLINEAR = 1e-12

/**
 * SLERP of two models by weights (mergekit's NuSLERP): [sin((1 - t) Omega) a + sin(t Omega) b] / sin Omega with
 * t = w_b / (w_a + w_b), of each tensor, or of each row or column of a matrix; (1 - t) a + t b where a and b are parallel, opposed, or
 * one of them is 0. With `fromBase` a and b are task vectors theta - theta_b, and the result is added to theta_b. dtypes, config and files
 * are the target's.
 * @throws ModelError "bad-weight", "zero-weights", "no-models", "bad-model-count", "missing-measure"; with every differing config,
 * missing tensor, differing shape and non-float tensor.
 */
export function nuslerp(options: NuslerpOptions): Op {
  return mergeOp(nuslerpMerge(options), options.measured)
}

/** What has to be measured before `nuslerp`: the dot products of the two, for each tensor, row or column. */
export function nuslerpTargets(base: Checkpoint, options: NuslerpOptions): MergeTargets {
  return mergeTargets(base, nuslerpMerge(options), options.measured)
}

function nuslerpMerge(options: NuslerpOptions): Merge {
  const { models, grain = 'tensor' } = options
  return sphericalMerge(options, {
    op: 'nuslerp',
    counts: [2, 2],
    normalize: true,
    grain,
    record: { grain },
    coefficients(dot, name) {
      const [a, b] = weightsFor(models, name)
      const t = b! / (a! + b!)
      const cos = cosine(dot, 0, 1)
      return 1 - cos * cos > COLLINEAR ? arc(t, cos) : [1 - t, t]
    },
  })
}

/** A method whose result lies in the span of the models, or of their task vectors. */
interface Spherical {
  readonly op: string
  readonly counts: readonly [number, number]
  /** Whether the weights are divided by their sum, which must not be 0 then. */
  readonly normalize: boolean
  readonly grain?: Grain
  /** Parameters for provenance. */
  readonly record: Readonly<Record<string, string | number | boolean>>
  coefficients(dot: Dots, name: string): ReturnType<Parameters<typeof spanned>[4]>
}

export function sphericalMerge(options: SphericalOptions, method: Spherical): Merge {
  const { models, fromBase = false, force = false } = options
  const { op, counts, normalize, grain = 'tensor', record, coefficients } = method
  return {
    inputs: { models: models.map(({ model }) => model), force },
    counts,
    hasBase: fromBase,
    problems: (tensors) => weightProblems(models, tensors, normalize),
    exprOf(operands, ask) {
      const { name, target } = operands
      const points = pointsOf(operands, fromBase)
      const merged = spanned(name, points, grain, ask, (dot) => coefficients(dot, name))
      return merged && (fromBase ? { op: 'add', args: [target, merged] } : merged)
    },
    step: (tensors) => ({ op, weights: weightsRecord(models, tensors), ...record }),
  }
}

function pointsOf(operands: MergeOperands, fromBase: boolean) {
  if (fromBase) return vectorsOf(operands).map(({ tensor }) => tensor)
  return operands.others.map((expr) => wideTensor(operands, expr))
}
