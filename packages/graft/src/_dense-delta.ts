import { type Family, familyOf } from '@polygraft/architectures'
import {
  addDelta,
  alignVocabularies,
  assembleRows,
  effectiveTensors,
  gatherRows,
  isTied,
  type RowAlignment,
  readDeltaStep,
  splitRows,
  storedExpr,
  type Vocabulary,
  vocabularyRows,
} from '@polygraft/delta'
import type { Checkpoint, DType, Expr, JsonObject, Problem, RowRuns, StateDict } from '@polygraft/tensor'
import type { GraftOptions } from './options.js'

/** A dense tensor's delta: post - base, or where `base` is undefined, `post` holding the difference already. */
export interface TensorDelta {
  readonly shape: readonly number[]
  readonly post: Expr
  readonly base: Expr | undefined
  /** Differs from `shape` only in the rows of vocabulary tensors. */
  readonly baseShape: readonly number[]
  /** Of the stored tensors. */
  readonly dtypes: readonly DType[]
}

/** The dense side of a graft, whichever way it was given. */
export interface DenseDelta {
  readonly family: Family
  /** Of the base, or of the stored delta. */
  readonly config: JsonObject
  /** The checkpoint whose tokenizer and generation settings the output takes: post, or the stored delta. */
  readonly carrier: Checkpoint
  readonly checkpoints: readonly Checkpoint[]
  /** Whether all its embeddings are tied. */
  readonly tied: boolean
  tensors(untied: boolean): ReadonlyMap<string, TensorDelta>
}

/** @throws ModelError "unsupported-family". */
export function denseDelta(options: GraftOptions): DenseDelta {
  if ('delta' in options) {
    const { delta } = options
    return {
      family: familyOf(delta.config),
      config: delta.config,
      carrier: delta,
      checkpoints: [delta],
      tied: isTied(delta),
      tensors: (untied) => tensorDeltas(delta, effectiveTensors(delta, untied)),
    }
  }
  const { base, post } = options
  return {
    family: familyOf(base.config),
    config: base.config,
    carrier: post,
    checkpoints: [base, post],
    tied: isTied(base) && isTied(post),
    tensors: (untied) =>
      tensorDeltas(post, effectiveTensors(post, untied), base, effectiveTensors(base, untied)),
  }
}

function tensorDeltas(
  post: Checkpoint,
  after: StateDict,
  base?: Checkpoint,
  before?: StateDict,
): ReadonlyMap<string, TensorDelta> {
  const deltas = new Map<string, TensorDelta>()
  for (const [name, tensor] of after) {
    const from = before?.get(name)
    if (before && !from) continue
    deltas.set(name, {
      shape: tensor.shape,
      post: storedExpr(tensor, post),
      base: from && storedExpr(from, base!),
      baseShape: from?.shape ?? tensor.shape,
      dtypes: [tensor.dtype, ...(from ? [from.dtype] : [])],
    })
  }
  return deltas
}

/** A delta as an expression: post and base, or the difference as post; and what base is in cpt, where rounding changes it. */
export interface ExprDelta {
  readonly post: Expr
  readonly base: Expr | undefined
  readonly frozen?: Expr | undefined
}

/** cpt + lambda * delta; `cpt` itself where lambda is 0. */
export function graftExpr(cpt: Expr, { base, post, frozen }: ExprDelta, lambda: number): Expr {
  if (lambda === 0) return cpt
  if (!base) return addDelta(cpt, post, lambda)
  return { op: 'graft', cpt, base, post, lambda, ...(frozen ? { frozen } : {}) }
}

/** The same for a vocabulary tensor [cptRows, width], row by row as `runs` says. */
export function graftRows(
  cpt: Expr,
  cptRows: number,
  delta: TensorDelta,
  lambda: number,
  runs: NonNullable<RowAlignment['runs']>,
): Expr {
  const [postRows, width] = [delta.shape[0]!, delta.shape[1]!]
  const gathered = {
    post: gatherRows(delta.post, width, runs.graft.post, postRows),
    base: delta.base && gatherRows(delta.base, width, runs.graft.base, delta.baseShape[0]!),
  }
  return assembleRows(runs, width, {
    graft: graftExpr(gatherRows(cpt, width, runs.graft.cpt, cptRows), gathered, lambda),
    post: gatherRows(delta.post, width, runs.post, postRows),
    cpt: gatherRows(cpt, width, runs.cpt, cptRows),
  })
}

/** How the rows of cpt's vocabulary tensors and the delta's go together, and what stands in the way. */
export function alignRows(cpt: Checkpoint, options: GraftOptions): RowAlignment {
  const { vocabularies } = options
  const target = { rows: vocabularyRows(cpt) ?? 0, vocabulary: vocabularies?.cpt }
  if ('delta' in options) return alignStored(target, options)
  const { base, post } = options
  return alignVocabularies({
    base: { rows: vocabularyRows(base) ?? 0, vocabulary: vocabularies?.base },
    post: { rows: vocabularyRows(post) ?? 0, vocabulary: vocabularies?.post },
    cpt: target,
  })
}

/** A stored delta stands for post, and for a base that lacks the tokens whose rows it copied. */
function alignStored(
  cpt: { rows: number; vocabulary: Vocabulary | undefined },
  { delta, vocabularies }: Extract<GraftOptions, { delta: Checkpoint }>,
): RowAlignment {
  const { copiedRows } = readDeltaStep(delta)
  const rows = vocabularyRows(delta) ?? 0
  const vocabulary = vocabularies?.delta ?? vocabularies?.post
  const label = 'delta'
  const base = { rows, label, vocabulary: vocabulary && without(vocabulary, copiedRows) }
  const aligned = alignVocabularies({ base, post: { rows, label, vocabulary }, cpt })
  // No tokenizers, but equal row counts: rows go by id, and those copied are copied.
  if (aligned.by === 'id' && copiedRows.length > 0) return { ...aligned, runs: splitRows(copiedRows, rows) }
  if (aligned.by !== 'token') return aligned
  return { ...aligned, problems: [...aligned.problems, ...lostRows(base.vocabulary!, cpt.vocabulary!)] }
}

function without(vocabulary: Vocabulary, rows: RowRuns): Vocabulary {
  const copied = new Set(rows.flatMap(([start, count]) => Array.from({ length: count }, (_, i) => start + i)))
  return { ...vocabulary, ids: new Map([...vocabulary.ids].filter(([, id]) => !copied.has(id))) }
}

/** Tokens of base and post that cpt lacks: post's row is wanted, and the delta has only the difference. */
function lostRows(base: Vocabulary, cpt: Vocabulary): Problem[] {
  return [...base.ids.keys()]
    .filter((token) => !cpt.ids.has(token))
    .map((token) => ({
      code: 'delta-row-missing',
      message: `cpt lacks token ${JSON.stringify(token)}, and a delta holds no row to copy for it`,
      next: 'Graft with --base and --post in place of --delta.',
    }))
}
