import {
  type Checkpoint,
  type Expr,
  isFloat,
  mergeSources,
  type Op,
  type Problem,
  scale,
  sourceIds,
  type Tensor,
  throwIfAny,
} from '@polygraft/tensor'
import { assembleRows, gatherRows, splitRows } from './assemble-rows.js'
import { vocabularyRows } from './create-delta.js'
import { readDeltaStep } from './delta-step.js'
import {
  effectiveTensors,
  isTied,
  isVocabularyTensor,
  knownFamily,
  skippedTensors,
  storedExpr,
} from './effective-tensors.js'
import { lambdaProblems, missingTensor, notFloat, shapeMismatch } from './problems.js'

export interface ApplyOptions {
  /** From `createDelta`, or such a one opened again. */
  readonly delta: Checkpoint
  /** Factor lambda of the delta. Default 1. */
  readonly lambda?: number
}

/**
 * theta + lambda * delta, tensor by tensor of the same name and shape (task arithmetic, arXiv:2212.04089; Chat Vector,
 * arXiv:2310.04799). dtypes, config and files stay the target's; where the delta has a head of its own, a tied target
 * is untied. Rows go together by id; rows that the delta copied replace the target's. To align vocabularies by token,
 * and for mixtures, use `graft` of `@polygraft/graft`.
 * @throws ModelError "not-a-delta", "bad-lambda"; with every missing tensor, differing shape and non-float tensor.
 */
export function applyDelta(options: ApplyOptions): Op {
  const { delta, lambda = 1 } = options
  return (target) => {
    throwIfAny(applyProblems(target, options))
    const { copiedRows } = readDeltaStep(delta)
    const tied = isTied(target) && isTied(delta)
    const deltas = effectiveTensors(delta, !tied)
    const tensors = new Map<string, Tensor>()
    for (const [name, tensor] of effectiveTensors(target, !tied)) {
      const change = deltas.get(name)!
      const [cpt, by] = [storedExpr(tensor, target), storedExpr(change, delta)]
      const copies = copiedRows.length > 0 && isVocabularyTensor(knownFamily(delta), name)
      const expr = copies
        ? onDifferences(tensor.shape, copiedRows, by, (rows, gather) => addDelta(gather(cpt), rows, lambda))
        : addDelta(cpt, by, lambda)
      tensors.set(name, expr === cpt ? tensor : { ...tensor, expr })
    }
    const step = { op: 'apply', inputs: { target: sourceIds(target), delta: sourceIds(delta) }, lambda }
    return {
      ...target,
      config: tied || !isTied(target) ? target.config : { ...target.config, tie_word_embeddings: false },
      tensors,
      sources: mergeSources(target, delta),
      provenance: {
        ...target.provenance,
        recipe: [...target.provenance.recipe, step],
        skipped: [...target.provenance.skipped, ...skippedTensors(target)],
      },
    }
  }
}

/** `by` * delta. Rows that hold post's own row are no differences, and stay as they are. */
export function scaleDelta(by: number): Op {
  return (delta) => {
    throwIfAny(lambdaProblems(by))
    const { copiedRows } = readDeltaStep(delta)
    const family = knownFamily(delta)
    const tensors = new Map<string, Tensor>()
    for (const [name, tensor] of delta.tensors) {
      const copies = copiedRows.length > 0 && isVocabularyTensor(family, name)
      const expr = copies
        ? onDifferences(tensor.shape, copiedRows, tensor.expr, (rows) => scale(by, rows))
        : scale(by, tensor.expr)
      tensors.set(name, { ...tensor, expr })
    }
    const recipe = [...delta.provenance.recipe, { op: 'scale', by }]
    return { ...delta, tensors, provenance: { ...delta.provenance, recipe } }
  }
}

/**
 * cpt + lambda * delta for a delta that is stored; cpt exactly where the delta is 0 or lambda is. The graft node has the
 * rule for that, so it is written with a base of 0. What a stored delta has lost is where cpt equals base: the result
 * can be post only up to F32's rounding there.
 */
export function addDelta(cpt: Expr, delta: Expr, lambda: number): Expr {
  if (lambda === 0) return cpt
  return { op: 'graft', cpt, base: { op: 'scale', by: 0, arg: delta }, post: delta, lambda }
}

/** `change` on the rows of `delta` that are differences, the copied ones in their places among them. */
function onDifferences(
  shape: readonly number[],
  copiedRows: Parameters<typeof splitRows>[0],
  delta: Expr,
  change: (differences: Expr, gather: (arg: Expr) => Expr) => Expr,
): Expr {
  const [rows, width] = [shape[0]!, shape[1]!]
  const runs = splitRows(copiedRows, rows)
  const gather = (arg: Expr) => gatherRows(arg, width, runs.graft.post, rows)
  const copied = gatherRows(delta, width, runs.post, rows)
  return assembleRows(runs, width, { graft: change(gather(delta), gather), post: copied, cpt: copied })
}

function applyProblems(target: Checkpoint, { delta, lambda = 1 }: ApplyOptions): Problem[] {
  const untied = !(isTied(target) && isTied(delta))
  const tensors = effectiveTensors(target, untied)
  const deltas = effectiveTensors(delta, untied)
  const problems = lambdaProblems(lambda)
  for (const [name, { shape, dtype }] of tensors) {
    const change = deltas.get(name)
    if (!change) problems.push(missingTensor(name, 'The checkpoint', 'the delta'))
    else if (`${change.shape}` !== `${shape}`)
      problems.push({
        ...shapeMismatch(name, `[${change.shape}] as in the delta`, `[${shape}]`),
        ...rowsAdvice(target, delta),
      })
    if (!isFloat(dtype)) problems.push(notFloat(name, 'the checkpoint', dtype))
  }
  const unused = [...deltas.keys()].filter((name) => !tensors.has(name))
  return [...problems, ...unused.map((name) => missingTensor(name, 'The delta', 'the checkpoint'))]
}

function rowsAdvice(target: Checkpoint, delta: Checkpoint): { next?: string } {
  if (vocabularyRows(target) === vocabularyRows(delta)) return {}
  return { next: 'Use graft, which aligns vocabularies by token.' }
}
