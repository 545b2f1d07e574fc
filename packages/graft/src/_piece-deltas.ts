import { pieceExpr } from '@polygraft/experts'
import { type Expr, type FloatDType, isFloat, numel, scale, type Tensor } from '@polygraft/tensor'
import { type ExprDelta, graftExpr, type TensorDelta } from './_dense-delta.js'
import type { Step, StepPiece } from './_plan.js'

/** The delta of a piece of a tensor, `size` elements of it, and its factor. */
export interface PieceDelta extends ExprDelta {
  readonly lambda: number
  readonly size: number
}

/** The deltas of a step's pieces; none where a dense tensor is missing (`graftProblems` names it) or has none. */
export function pieceDeltas(
  { pieces, cpt }: Step,
  deltas: ReadonlyMap<string, TensorDelta>,
): readonly PieceDelta[] {
  const found = pieces.flatMap((piece) => {
    const delta = deltas.get(piece.dense)
    return delta ? [pieceDelta(piece, delta, cpt)] : []
  })
  return found.length === pieces.length ? found : []
}

/**
 * The same is done to a difference as was to the weights: it is cut and scaled alike, and entries that were drawn anew take none
 * of it, since they are no neuron of the dense model any more. (Upcycling is affine in the weights; this is its linear part.)
 */
function pieceDelta(piece: StepPiece, { base, post, shape }: TensorDelta, { dtype }: Tensor): PieceDelta {
  const { lambda, parts, factor } = piece
  const size = numel(shape) / parts
  const from = base && pieceExpr(piece, base)
  return {
    post: pieceExpr(piece, post, base ?? { op: 'scale', by: 0, arg: post }),
    base: from,
    // Upcycling stored the scaled base rounded, and that is what training left alone.
    ...(from && factor !== 1 && isFloat(dtype) ? { frozen: { op: 'cast', dtype, arg: from } } : {}),
    lambda,
    size,
  }
}

/** cpt with the deltas of its pieces added: at once where they have one factor, else piece by piece. */
export function graftPieces(cpt: Expr, deltas: readonly PieceDelta[]): Expr {
  const [first, ...rest] = deltas
  if (!first) return cpt
  if (rest.every(({ lambda }) => lambda === first.lambda)) return graftExpr(cpt, joined(deltas), first.lambda)
  let begin = 0
  const parts = deltas.map((delta) => {
    const slice: Expr = { op: 'rows', arg: cpt, width: 1, runs: [[begin, delta.size]] }
    begin += delta.size
    return graftExpr(slice, delta, delta.lambda)
  })
  return { op: 'concat', args: parts, sizes: deltas.map(({ size }) => size) }
}

/** The deltas one after the other. */
export function joined(deltas: readonly PieceDelta[]): ExprDelta {
  const sizes = deltas.map(({ size }) => size)
  const join = (exprs: readonly Expr[]): Expr =>
    exprs.length === 1 ? exprs[0]! : { op: 'concat', args: exprs, sizes }
  const hasBase = deltas.every(({ base }) => base)
  return {
    post: join(deltas.map(({ post }) => post)),
    base: hasBase ? join(deltas.map(({ base }) => base!)) : undefined,
    frozen: deltas.some(({ frozen }) => frozen)
      ? join(deltas.map(({ base, frozen }) => frozen ?? base!))
      : undefined,
  }
}

/** What is added: lambda * (post - base), one piece after the other. */
export function addedExpr(deltas: readonly PieceDelta[]): Expr {
  const args = deltas.map(({ lambda, base, post }) =>
    scale(lambda, base ? { op: 'sub', args: [post, base] } : post),
  )
  return args.length === 1 ? args[0]! : { op: 'concat', args, sizes: deltas.map(({ size }) => size) }
}

/** The deltas that take `deltas` off again. */
export function reversed(deltas: readonly PieceDelta[], dtype: FloatDType): readonly PieceDelta[] {
  return deltas.map(({ base, post, frozen, ...rest }) =>
    base
      ? { ...rest, base: post, post: base, ...(frozen ? { frozen: { op: 'cast', dtype, arg: post } } : {}) }
      : { ...rest, base, post, lambda: -rest.lambda },
  )
}
