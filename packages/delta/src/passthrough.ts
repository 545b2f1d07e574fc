import { type Checkpoint, type Op, scale } from '@polygraft/tensor'
import { factorProblems } from './combine.js'
import { type Merge, mergeOp } from './merge-models.js'
import { type PerTensor, recordOf, valueFor } from './per-tensor.js'

export interface PassthroughOptions {
  /** One model, and a factor for it. */
  readonly models: readonly {
    readonly model: Checkpoint
    /** Default 1: stored bits pass through. */
    readonly scale?: PerTensor
  }[]
  /** Go on although configs differ. */
  readonly force?: boolean
}

/**
 * scale * theta of one model: what layers are stacked with. dtypes, config and files are the target's.
 * @throws ModelError "bad-lambda", "no-models", "bad-model-count"; with every differing config, missing tensor, differing shape
 * and non-float tensor.
 */
export function passthrough({ models, force = false }: PassthroughOptions): Op {
  const factors = models.map(({ scale = 1 }) => scale)
  const merge: Merge = {
    inputs: { models: models.map(({ model }) => model), force },
    counts: [1, 1],
    hasBase: false,
    problems: (tensors) => factors.flatMap((factor) => factorProblems(factor, tensors, 'The scale')),
    exprOf: ({ name, others }) => scale(valueFor(factors[0]!, name), others[0]!),
    step: (tensors) => ({ op: 'passthrough', scale: recordOf(factors[0]!, tensors) }),
  }
  return mergeOp(merge)
}
