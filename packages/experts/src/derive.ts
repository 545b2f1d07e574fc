import { type Expr, literal, numel } from '@polygraft/tensor'
import { redrawnCount } from './_neurons.js'
import { type Layout, type Piece, pieceExpr } from './pieces.js'

/**
 * A piece as upcycling makes it of the dense values `x`: cut and scaled, redrawn entries normal with the recorded moments of
 * those that they replace, noise added where the expansion has it. Copy 0 is exact.
 */
export function deriveExpr({ expansion }: Layout, piece: Piece, x: Expr): Expr {
  const { noise } = expansion
  const made = pieceExpr(piece, x, piece.kept ? drawnExpr(expansion.drop!, piece) : undefined)
  if (!noise || !piece.copy) return made
  const drawn: Expr = {
    op: 'random',
    distribution: 'normal',
    scale: noise.std,
    seed: noise.seed,
    name: piece.name,
  }
  return { op: 'add', args: [made, drawn] }
}

function drawnExpr({ moments, seed }: NonNullable<Layout['expansion']['drop']>, piece: Piece): Expr {
  const name = redrawnKey(piece)
  const [mean, std] = moments.get(name) ?? [0, 0]
  const drawn: Expr = { op: 'random', distribution: 'normal', scale: std, seed, name }
  return { op: 'add', args: [drawn, constant(mean, numel(piece.matrix!.shape))] }
}

/** Names the redrawn entries of a matrix of a copy: in the recipe, and for their random draws. */
export function redrawnKey({ dense, copy }: Piece): string {
  return `${dense} of copy ${copy}`
}

/** The entries of `x` that the piece's copy replaces, and 0 elsewhere, in the dense matrix's shape. */
export function replacedExpr({ kept, matrix }: Piece, x: Expr): Expr {
  return { op: 'select', mask: kept!, on: constant(0, numel(matrix!.shape)), off: x }
}

/** How many those are. */
export function replacedCount({ expansion, hiddenSize, intermediateSize }: Layout): number {
  return redrawnCount(intermediateSize, expansion.drop?.rate ?? 0) * hiddenSize
}

/** Mean and standard deviation of `count` entries with that sum and sum of squares. */
export function momentsOf(
  sum: number,
  sumSquares: number,
  count: number,
): readonly [mean: number, std: number] {
  const mean = sum / count
  return [mean, Math.sqrt(Math.max(0, sumSquares / count - mean * mean))]
}

/** The number `value`, `count` times. */
export function constant(value: number, count: number): Expr {
  return { op: 'spread', arg: literal(Float32Array.of(value)), count: 1, each: count, times: 1 }
}
