import type { Checkpoint, Op } from '@polygraft/tensor'
import { factorProblems } from './combine.js'
import { mergeOp } from './merge-models.js'
import { type PerTensor, recordOf, valueFor } from './per-tensor.js'

export interface ParamDeltaOptions {
  /** What post was trained from. */
  readonly base: Checkpoint
  readonly post: Checkpoint
  /** Factor of the delta. Default 1. */
  readonly lambda?: PerTensor
  /** Go on although configs differ. */
  readonly force?: boolean
}

/**
 * Param-delta (Cao et al., arXiv:2504.21023) and Chat Vector (Huang et al., arXiv:2310.04799), which are one formula: theta_c + lambda (theta_post - theta_base), where the
 * target c is the base after more pre-training. With lambda 1 an element that post left as it was stays c's, and one that pre-training left is post's, bit for bit
 * (see `graft` of `Expr`). For models of one shape, rows of vocabularies by id; a mixture, or another vocabulary, takes `graft` of `@polygraft/graft`. dtypes,
 * config and files stay the target's.
 * @throws ModelError "bad-lambda"; with every differing config, missing tensor, differing shape and non-float tensor.
 */
export function paramDelta({ base, post, lambda = 1, force = false }: ParamDeltaOptions): Op {
  return mergeOp({
    inputs: { models: [base, post], force },
    counts: [2, 2],
    hasBase: false,
    problems: (tensors) => factorProblems(lambda, tensors),
    exprOf: ({ name, target, others }) => ({
      op: 'graft',
      cpt: target,
      base: others[0]!,
      post: others[1]!,
      lambda: valueFor(lambda, name),
    }),
    step: (tensors) => ({ op: 'param_delta', lambda: recordOf(lambda, tensors) }),
  })
}
