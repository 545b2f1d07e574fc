import type { Checkpoint, Op, Problem } from '@polygraft/tensor'
import {
  addElected,
  addSum,
  type Consensus,
  factorProblems,
  type WeightedModel,
  weightProblems,
  weightsFor,
  weightsRecord,
} from './combine.js'
import type { Ask } from './measures.js'
import { type Merge, type MergeOperands, mergeOp, vectorName, wideTensor } from './merge-models.js'
import { type PerTensor, recordOf, valueFor } from './per-tensor.js'
import type { Vector } from './sparsify.js'

/** What merges of task vectors tau_t = theta_t - theta_b have in common. */
export interface TaskVectorOptions {
  readonly models: readonly WeightedModel<Checkpoint>[]
  /** Factor lambda of the merged task vector. Default 1. */
  readonly lambda?: PerTensor
  /** Divide by the sum of the weights: of all, or where signs are elected of those elected. */
  readonly normalize?: boolean
  /** Go on although configs differ. */
  readonly force?: boolean
}

/**
 * theta_b + lambda sum_t w_t tau_t with tau_t = theta_t - theta_b (task arithmetic, Ilharco et al., arXiv:2212.04089,
 * section 2); with `normalize` the w_t are divided by their sum, as by mergekit's option of that name (default false). The
 * target is the base b. The sum of the weighted task vectors is a left fold in F32 and is then added to the base. dtypes,
 * config and files stay the base's; rows of vocabularies go together by id.
 * @throws ModelError "bad-weight", "bad-lambda", "zero-weights", "no-models"; with every differing config, missing tensor,
 * differing shape and non-float tensor.
 */
export function taskArithmetic(options: TaskVectorOptions): Op {
  return mergeOp(vectorMerge('task_arithmetic', options, { normalize: false, elect: false }))
}

/** What becomes of each task vector before they are added: of model t, for the tensor `name`. */
export interface Preparation {
  prepare(vector: Vector, t: number, name: string, ask: Ask): Vector['tensor']['expr'] | undefined
  problems(tensors: readonly string[]): Problem[]
  /** Parameters for provenance. */
  record(tensors: readonly string[]): Readonly<Record<string, ReturnType<typeof recordOf>>>
}

/** theta_b + lambda * the sum, or the elected mean, of weighted task vectors that were prepared somehow. */
export function vectorMerge(
  op: string,
  options: TaskVectorOptions & Consensus,
  defaults: { readonly normalize: boolean; readonly elect: boolean },
  preparation?: Preparation,
): Merge {
  const { models, lambda = 1, normalize = defaults.normalize, force = false } = options
  const { consensus = 'sum', tie = 'none' } = options
  return {
    inputs: { models: models.map(({ model }) => model), force },
    problems: (tensors) => [
      ...(preparation?.problems(tensors) ?? []),
      ...weightProblems(models, tensors, normalize),
      ...factorProblems(lambda, tensors),
    ],
    exprOf(operands, ask) {
      const { name, target } = operands
      const vectors = vectorsOf(operands).map((vector, t) =>
        preparation ? preparation.prepare(vector, t, name, ask) : vector.tensor.expr,
      )
      if (vectors.includes(undefined)) return undefined
      const prepared = vectors.map((vector) => vector!)
      const weights = weightsFor(models, name)
      const choice = { lambda: valueFor(lambda, name), normalize, consensus, tie }
      return defaults.elect
        ? addElected(target, prepared, weights, choice)
        : addSum(target, prepared, weights, choice)
    },
    step: (tensors) => ({
      op,
      weights: weightsRecord(models, tensors),
      lambda: recordOf(lambda, tensors),
      normalize,
      ...(defaults.elect ? { consensus, tie } : {}),
      ...(preparation?.record(tensors) ?? {}),
    }),
  }
}

/** theta_t - theta_b for each model. */
export function vectorsOf(operands: MergeOperands): Vector[] {
  const { name, target, others } = operands
  return others.map((expr, t) => ({
    key: vectorName(name, t),
    tensor: wideTensor(operands, { op: 'sub', args: [expr, target] }),
  }))
}
