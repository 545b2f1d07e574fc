import type { Checkpoint, Op, Problem } from '@polygraft/tensor'
import { type Merge, mergeOp } from './merge-models.js'
import { type PerTensor, perTensorProblems, recordOf, valueFor } from './per-tensor.js'

export interface NearswapOptions {
  /** The one that is moved towards. */
  readonly models: readonly { readonly model: Checkpoint }[]
  /** How far each element may move. */
  readonly t: PerTensor
  /** Go on although configs differ. */
  readonly force?: boolean
}

/**
 * NearSwap (alchemonaut, QuartetAnemoi-70B-t0.0001): (1 - w) a + w b with w = min(1, t / |a - b|) element by element, a the target and b
 * the model. That is b where it is within t of a, exactly, else a + t or a - t. dtypes, config and files stay the target's.
 * @throws ModelError "bad-t", "no-models", "bad-model-count"; with every differing config, missing tensor, differing shape and
 * non-float tensor.
 */
export function nearswap({ models, t, force = false }: NearswapOptions): Op {
  const merge: Merge = {
    inputs: { models: models.map(({ model }) => model), force },
    counts: [1, 1],
    problems: (tensors) => perTensorProblems(t, tensors, distanceProblems),
    exprOf: ({ name, target, others }) => ({
      op: 'clamp',
      arg: others[0]!,
      to: target,
      by: valueFor(t, name),
    }),
    step: (tensors) => ({ op: 'nearswap', t: recordOf(t, tensors) }),
  }
  return mergeOp(merge)
}

function distanceProblems(t: number): Problem[] {
  if (t >= 0 && Number.isFinite(Math.fround(t))) return []
  return [{ code: 'bad-t', message: 't is no distance', expected: '0 or more', received: `${t}` }]
}
