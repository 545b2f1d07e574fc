import type { Checkpoint, Op } from '@polygraft/tensor'
import type { Measures, MergeTargets } from './measures.js'
import { type Merge, mergeOp, mergeTargets } from './merge-models.js'
import { cosine, type Dots, type Grain, spanned } from './span.js'
import { vectorsOf } from './task-arithmetic.js'

export interface ModelStockOptions {
  /** Two fine-tuned models or more. */
  readonly models: readonly { readonly model: Checkpoint }[]
  /** 'rows' estimates the angle for each output of a matrix. Default 'tensor', as in the paper. */
  readonly grain?: Exclude<Grain, 'columns'>
  /** Go on although configs differ. */
  readonly force?: boolean
  /** What `modelStockTargets` of the same base and options asks for. */
  readonly measured?: Measures
}

/** Below it the denominator is taken for 0: there is no estimate, and the base stays. */
const LEAST_DENOMINATOR = 1e-6

/**
 * Model Stock (Jang et al., arXiv:2403.19522, section 4): theta_b + t (mean_i theta_i - theta_b) with
 * t = N cos theta / (1 + (N - 1) cos theta), where theta is the mean angle (by its cosine) of the pairs of task vectors theta_i - theta_b of a
 * tensor and N their number. A pair with a task vector of 0 counts as cos 0. dtypes, config and files stay the base's.
 * @throws ModelError "no-models", "bad-model-count", "missing-measure"; with every differing config, missing tensor, differing shape
 * and non-float tensor.
 */
export function modelStock(options: ModelStockOptions): Op {
  return mergeOp(modelStockMerge(options), options.measured)
}

/** What has to be measured before `modelStock`: all dot products of the task vectors, for each tensor or row. */
export function modelStockTargets(base: Checkpoint, options: ModelStockOptions): MergeTargets {
  return mergeTargets(base, modelStockMerge(options), options.measured)
}

function modelStockMerge({ models, grain = 'tensor', force = false }: ModelStockOptions): Merge {
  return {
    inputs: { models: models.map(({ model }) => model), force },
    counts: [2, Number.POSITIVE_INFINITY],
    problems: () => [],
    exprOf(operands, ask) {
      const vectors = vectorsOf(operands).map(({ tensor }) => tensor)
      const moved = spanned(operands.name, vectors, grain, ask, (dot) => {
        const t = ratioOf(dot, vectors.length)
        return vectors.map(() => t / vectors.length)
      })
      return moved && { op: 'add', args: [operands.target, moved] }
    },
    step: () => ({ op: 'model_stock', grain }),
  }
}

function ratioOf(dot: Dots, count: number): number {
  let sum = 0
  for (let i = 0; i < count; i++) for (let j = i + 1; j < count; j++) sum += cosine(dot, i, j) || 0
  const cos = sum / ((count * (count - 1)) / 2)
  const denominator = 1 + (count - 1) * cos
  return Math.abs(denominator) < LEAST_DENOMINATOR ? 0 : (count * cos) / denominator
}
