import { type Checkpoint, type Expr, literal, numel, type Op, type Problem, scale } from '@polygraft/tensor'
import type { Ask, Measures, MergeTargets } from './measures.js'
import { type Merge, type MergeOperands, mergeOp, mergeTargets } from './merge-models.js'
import { type PerTensor, perTensorProblems, recordOf, valueFor } from './per-tensor.js'
import { vectorsOf } from './task-arithmetic.js'

export interface RamOptions {
  readonly models: readonly { readonly model: Checkpoint }[]
  /** An element of a task vector is a change where its magnitude is above this. Default 1e-5. */
  readonly epsilon?: PerTensor
  /** Go on although configs differ. */
  readonly force?: boolean
}

export interface RamPlusOptions extends RamOptions {
  /** Weight of the overlap in the factor for unique changes. Default 0.1. */
  readonly r?: PerTensor
  /** Most overlap that counts. Default 0.2. */
  readonly alpha?: PerTensor
  /** What `ramPlusTargets` of the same base and options asks for. */
  readonly measured?: Measures
}

/**
 * Reinforced Agent Merging (Yuan et al., arXiv:2601.13572): theta_b + tau, where an element of tau is the mean of those tau_t = theta_t - theta_b
 * that change it (|tau_t| > epsilon): averaged where several do, kept whole where only one does. The target is the base b. dtypes,
 * config and files stay the base's.
 * @throws ModelError "bad-epsilon", "no-models"; with every differing config, missing tensor, differing shape and non-float tensor.
 */
export function ram({ models, epsilon = 1e-5, force = false }: RamOptions): Op {
  const merge: Merge = {
    inputs: { models: models.map(({ model }) => model), force },
    problems: (tensors) => perTensorProblems(epsilon, tensors, (value) => shareProblems(value, 'epsilon')),
    exprOf: (operands) => ({
      op: 'add',
      args: [operands.target, { op: 'elect', by: 'any', args: changesOf(operands, epsilon) }],
    }),
    step: (tensors) => ({ op: 'ram', epsilon: recordOf(epsilon, tensors) }),
  }
  return mergeOp(merge)
}

/**
 * RAM+ (Yuan et al., arXiv:2601.13572): `ram`, with the changes that model t alone makes times 1 + r min(rho_t, alpha), where
 * rho_t = its changes that others make too / its changes that it makes alone. The ratio is that of each tensor, as in mergekit's `ramplus_tl`.
 * @throws ModelError "bad-r", "bad-alpha", "missing-measure", and as `ram` does.
 */
export function ramPlus(options: RamPlusOptions): Op {
  return mergeOp(ramPlusMerge(options), options.measured)
}

/** What has to be measured before `ramPlus`: how many elements of each tensor each model changes, alone and with others. */
export function ramPlusTargets(base: Checkpoint, options: RamPlusOptions): MergeTargets {
  return mergeTargets(base, ramPlusMerge(options), options.measured)
}

function ramPlusMerge(options: RamPlusOptions): Merge {
  const { models, epsilon = 1e-5, r = 0.1, alpha = 0.2, force = false } = options
  return {
    inputs: { models: models.map(({ model }) => model), force },
    problems: (tensors) =>
      Object.entries({ epsilon, r, alpha }).flatMap(([name, parameter]) =>
        perTensorProblems(parameter, tensors, (value) => shareProblems(value, name)),
      ),
    exprOf(operands, ask) {
      const { name, target } = operands
      const changes = changesOf(operands, epsilon)
      const shared = sharedOf(changes, numel(operands.tensor.shape))
      const overlaps = overlapsOf(operands, changes, shared, ask)
      if (!overlaps) return undefined
      const unique = changes.map((change, t): Expr => {
        const factor = 1 + valueFor(r, name) * Math.min(overlaps[t]!, valueFor(alpha, name))
        return scale(factor, { op: 'sub', args: [change, shared[t]!] })
      })
      return { op: 'add', args: [target, ...unique, { op: 'elect', by: 'any', args: shared }] }
    },
    step: (tensors) => ({
      op: 'ramplus_tl',
      epsilon: recordOf(epsilon, tensors),
      r: recordOf(r, tensors),
      alpha: recordOf(alpha, tensors),
    }),
  }
}

/** The task vectors where they are changes, else 0. */
function changesOf(operands: MergeOperands, epsilon: PerTensor): Expr[] {
  const threshold = valueFor(epsilon, operands.name)
  return vectorsOf(operands).map(({ tensor }) => ({ op: 'keep', arg: tensor.expr, threshold, tieEnd: 0 }))
}

/** The changes where more than one of them is not 0, else 0. */
function sharedOf(changes: readonly Expr[], elements: number): Expr[] {
  const one: Expr = { op: 'spread', arg: literal(Float32Array.of(1)), count: 1, each: elements, times: 1 }
  const marks = changes.map((by): Expr => ({ op: 'keep', arg: one, by, threshold: 0, tieEnd: 0 }))
  const by: Expr = marks.length === 1 ? marks[0]! : { op: 'add', args: marks }
  return changes.map((arg) => ({ op: 'keep', arg, by, threshold: 1, tieEnd: 0 }))
}

/** rho_t of each model. */
function overlapsOf(
  operands: MergeOperands,
  changes: readonly Expr[],
  shared: readonly Expr[],
  ask: Ask,
): number[] | undefined {
  const vectors = vectorsOf(operands)
  const countOf = (expr: Expr, t: number, what: string) => {
    const { key, tensor } = vectors[t]!
    const found = ask.statistics(`${key}, ${what}`, { ...tensor, expr })
    return found && found.count - found.zeros
  }
  const all = changes.map((change, t) => countOf(change, t, 'changes'))
  const both = shared.map((expr, t) => countOf(expr, t, 'shared changes'))
  if (all.includes(undefined) || both.includes(undefined)) return undefined
  return both.map((count, t) => {
    const alone = all[t]! - count!
    return alone > 0 ? count! / alone : 0
  })
}

function shareProblems(value: number, name: string): Problem[] {
  if (value >= 0 && Number.isFinite(value)) return []
  return [
    { code: `bad-${name}`, message: `${name} is out of range`, expected: '0 or more', received: `${value}` },
  ]
}
