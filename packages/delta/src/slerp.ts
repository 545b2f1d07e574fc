import type { Checkpoint, Op } from '@polygraft/tensor'
import { factorProblems } from './combine.js'
import type { Measures, MergeTargets } from './measures.js'
import { type Merge, mergeOp, mergeTargets, wideTensor } from './merge-models.js'
import { type PerTensor, recordOf, valueFor } from './per-tensor.js'
import { arc, cosine, type Dots, spanned } from './span.js'

export interface SlerpOptions {
  /** The one that the base is interpolated with. */
  readonly models: readonly { readonly model: Checkpoint }[]
  /** 0 is the base, 1 the model. */
  readonly t: PerTensor
  /** Go on although configs differ. */
  readonly force?: boolean
  /** What `slerpTargets` of the same base and options asks for. */
  readonly measured?: Measures
}

/** Above it, as in the usual implementations, two vectors are taken for parallel or opposed. */
const PARALLEL = 0.9995

/**
 * Spherical interpolation (Shoemake, SIGGRAPH 1985), of each tensor as one vector: [sin((1 - t) Omega) a + sin(t Omega) b] / sin Omega,
 * with a the target, b the model and Omega the angle between them; (1 - t) a + t b where |cos Omega| > 0.9995,
 * where a or b is 0, and where one holds NaN.
 * dtypes, config and files stay the target's.
 * @throws ModelError "bad-factor", "no-models", "bad-model-count", "missing-measure"; with every differing config, missing
 * tensor, differing shape and non-float tensor.
 */
export function slerp(options: SlerpOptions): Op {
  return mergeOp(slerpMerge(options), options.measured)
}

/** What has to be measured before `slerp`: the dot products of the two, for each tensor. */
export function slerpTargets(base: Checkpoint, options: SlerpOptions): MergeTargets {
  return mergeTargets(base, slerpMerge(options), options.measured)
}

function slerpMerge({ models, t, force = false }: SlerpOptions): Merge {
  return {
    inputs: { models: models.map(({ model }) => model), force },
    counts: [1, 1],
    problems: (tensors) => factorProblems(t, tensors, 't'),
    exprOf(operands, ask) {
      const { name, target, others } = operands
      const pair = [target, others[0]!].map((expr) => wideTensor(operands, expr))
      return spanned(name, pair, 'tensor', ask, (dot) => between(dot, valueFor(t, name)))
    },
    step: (tensors) => ({ op: 'slerp', t: recordOf(t, tensors) }),
  }
}

function between(dot: Dots, t: number): readonly number[] {
  const cos = cosine(dot, 0, 1)
  return Math.abs(cos) <= PARALLEL ? arc(t, cos) : [1 - t, t]
}
