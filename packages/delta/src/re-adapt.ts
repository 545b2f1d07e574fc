import { type Checkpoint, type Op, type Problem, scale } from '@polygraft/tensor'
import { factorProblems } from './combine.js'
import { readDeltaStep } from './delta-step.js'
import { labelOf, mergeOp } from './merge-models.js'
import { type PerTensor, recordOf, valueFor } from './per-tensor.js'

export interface ReAdaptOptions {
  /** D = theta_c - theta_b: what pre-training on new text changed. From `createDelta`, perhaps through `truncateDelta`. */
  readonly knowledge: Checkpoint
  /** Delta = theta_i - theta_b: what post-training changed, in the same way. */
  readonly instruct: Checkpoint
  /** Factor alpha of the knowledge. Default 1. */
  readonly alpha?: PerTensor
  /** Factor beta of the post-training. Default 1. */
  readonly beta?: PerTensor
  /** Go on although configs differ. */
  readonly force?: boolean
}

/**
 * RE-Adapt (Fleshman and Van Durme, arXiv:2405.15007, section 3): theta_b + (alpha D + beta Delta), the sum of the deltas first, in F32, and one rounding. The target is
 * the base b. With a Delta, or a D, that `truncateDelta` cut to a low rank it is LoRE-Adapt. Rows of vocabularies go together by id. dtypes, config and files stay the base's.
 * @throws ModelError "not-a-delta"; "bad-lambda"; "copied-rows" for a delta with rows of tokens that base does not have; with every differing config, missing
 * tensor, differing shape and non-float tensor.
 */
export function reAdapt({ knowledge, instruct, alpha = 1, beta = 1, force = false }: ReAdaptOptions): Op {
  const deltas = [knowledge, instruct]
  return mergeOp({
    inputs: { models: deltas, force },
    counts: [2, 2],
    problems: (tensors) => [
      ...factorProblems(alpha, tensors, 'alpha'),
      ...factorProblems(beta, tensors, 'beta'),
      ...deltas.flatMap(copiedProblems),
    ],
    exprOf: ({ name, target, others: [d, delta] }) => ({
      op: 'add',
      args: [
        target,
        { op: 'add', args: [scale(valueFor(alpha, name), d!), scale(valueFor(beta, name), delta!)] },
      ],
    }),
    step: (tensors) => ({
      op: 're_adapt',
      alpha: recordOf(alpha, tensors),
      beta: recordOf(beta, tensors),
    }),
  })
}

function copiedProblems(delta: Checkpoint, i: number): Problem[] {
  const rows = readDeltaStep(delta).copiedRows.reduce((sum, [, count]) => sum + count, 0)
  if (rows === 0) return []
  return [
    {
      code: 'copied-rows',
      message: `Rows of the vocabulary in ${labelOf(i)} are no differences: the base has no such tokens, or only padding there`,
      received: `${rows} rows`,
      next: 'Make the delta of checkpoints with one vocabulary.',
    },
  ]
}
