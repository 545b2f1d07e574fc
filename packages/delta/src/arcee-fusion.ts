import { type Checkpoint, type Expr, literal, numel, type Op, type Tensor } from '@polygraft/tensor'
import type { Ask, Measures, MergeTargets } from './measures.js'
import { type Merge, type MergeOperands, mergeOp, mergeTargets, wideTensor } from './merge-models.js'

export interface FusionOptions {
  /** The one whose important changes are taken. */
  readonly models: readonly { readonly model: Checkpoint }[]
  /** Go on although configs differ. */
  readonly force?: boolean
  /** What `arceeFusionTargets` of the same base and options asks for. */
  readonly measured?: Measures
}

/**
 * Arcee Fusion (Arcee AI; its definition is mergekit's), for each tensor, with rows along the last dimension:
 * importance I = |theta - theta_b| KL(softmax(theta), softmax(theta_b)), the divergence by row (`measureDivergences` of `@polygraft/engine`, rounded to F32);
 * threshold T = Q2 + 1.5 (Q3 - Q1) of all I of the tensor, Q the exact quartiles I_(floor(q (n - 1))) in ascending order from 0;
 * theta where I >= T, else theta_b: both exactly as they are.
 * The target is the base b. mergekit takes the quartiles of tensors of more than a million elements from a random sample. Where
 * an element of a row is NaN or infinite its importance is NaN, and theta is taken. dtypes, config and files stay the base's.
 * @throws ModelError "no-models", "bad-model-count", "missing-measure"; with every differing config, missing tensor, differing shape and
 * non-float tensor.
 */
export function arceeFusion(options: FusionOptions): Op {
  return mergeOp(fusionMerge(options), options.measured)
}

/** What has to be measured before `arceeFusion`, in two rounds: divergences of rows, then three quartiles of the importance. */
export function arceeFusionTargets(base: Checkpoint, options: FusionOptions): MergeTargets {
  return mergeTargets(base, fusionMerge(options), options.measured)
}

function fusionMerge({ models, force = false }: FusionOptions): Merge {
  return {
    inputs: { models: models.map(({ model }) => model), force },
    counts: [1, 1],
    problems: () => [],
    exprOf(operands, ask) {
      const { tensor, target, others } = operands
      const elements = numel(tensor.shape)
      if (elements === 0) return target
      const importance = importanceOf(operands, ask)
      const threshold = importance && outlierThreshold(operands.name, importance, ask)
      if (!importance || threshold === undefined) return undefined
      const one: Expr = {
        ...{ op: 'spread', arg: literal(Float32Array.of(1)) },
        ...{ count: 1, each: elements, times: 1 },
      }
      const mask: Expr = { op: 'keep', arg: one, by: importance.expr, threshold, tieEnd: elements }
      return { op: 'select', mask, on: others[0]!, off: target }
    },
    step: () => ({ op: 'arcee_fusion' }),
  }
}

/** I, of the output's shape. Its sign is that of the change, which ranking by magnitude does not see. */
function importanceOf(operands: MergeOperands, ask: Ask): Tensor | undefined {
  const { name, tensor, target, others } = operands
  const [a, b] = [others[0]!, target].map((expr) => wideTensor(operands, expr))
  const width = tensor.shape.at(-1) ?? 1
  const found = ask.divergences(name, { a: a!, b: b!, width })
  if (!found) return undefined
  const rows = literal(Float32Array.from(found))
  const divergence: Expr = { op: 'spread', arg: rows, count: found.length, each: width, times: 1 }
  return wideTensor(operands, { op: 'mul', args: [{ op: 'sub', args: [a!.expr, b!.expr] }, divergence] })
}

/** T in the arithmetic's dtype. */
function outlierThreshold(name: string, importance: Tensor, ask: Ask): number | undefined {
  const quartiles = [1, 2, 3].map((quarter) => quartile(name, importance, quarter, ask))
  if (quartiles.includes(undefined)) return undefined
  const [q1, q2, q3] = quartiles as [number, number, number]
  const threshold = q2 + 1.5 * (q3 - q1)
  return importance.dtype === 'F64' ? threshold : Math.fround(threshold)
}

function quartile(name: string, importance: Tensor, quarter: number, ask: Ask): number | undefined {
  const elements = numel(importance.shape)
  const below = Math.floor((quarter * (elements - 1)) / 4)
  const target = { tensor: below > 0 ? importance : withZero(importance), keep: elements - below }
  return ask.threshold(`${name}, quartile ${quarter}`, target)?.threshold
}

/** With one element of 0 more, below which no magnitude is: where all others are wanted, the least of them is still looked for. */
function withZero({ dtype, shape, expr }: Tensor): Tensor {
  const elements = numel(shape)
  const args = [expr, literal(Float32Array.of(0))]
  return { dtype, shape: [elements + 1], expr: { op: 'concat', args, sizes: [elements, 1] } }
}
