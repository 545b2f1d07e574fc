import type { Expr, RowRuns } from '@polygraft/tensor'
import { appendRow, rowCount } from './_runs.js'
import type { TokenRuns } from './align-vocabularies.js'

/** Row numbers, in order, as runs. */
export function runsOf(rows: Iterable<number>): RowRuns {
  const runs: RowRuns[number][] = []
  for (const row of rows) appendRow(runs, row)
  return runs
}

/** Rows of `arg` [rows, width] gathered by `runs`; `arg` itself when those are all its rows in order. */
export function gatherRows(arg: Expr, width: number, runs: RowRuns, rows: number): Expr {
  const [first] = runs
  if (runs.length === 1 && first?.[0] === 0 && first[1] === rows) return arg
  return { op: 'rows', arg, width, runs }
}

/**
 * A vocabulary tensor [rows, width] out of its grafted, copied and kept rows, each given in the order of `runs`. The
 * expression has a fixed number of nodes; only the lists of runs grow with the vocabularies' disorder.
 */
export function assembleRows(
  runs: TokenRuns,
  width: number,
  parts: { readonly graft: Expr; readonly post: Expr; readonly cpt: Expr },
): Expr {
  const counts = { graft: rowCount(runs.graft.post), post: rowCount(runs.post), cpt: rowCount(runs.cpt) }
  const used = (['graft', 'post', 'cpt'] as const).filter((kind) => counts[kind] > 0)
  const args = used.map((kind) => parts[kind])
  const joined: Expr =
    args.length === 1 ? args[0]! : { op: 'concat', args, sizes: used.map((kind) => counts[kind] * width) }
  return gatherRows(joined, width, runs.order, counts.graft + counts.post + counts.cpt)
}

/** Rows [0, rows) parted by id into those of `copied` (taken from post) and all others (grafted, row by row). */
export function splitRows(copied: RowRuns, rows: number): TokenRuns {
  const isCopied = new Uint8Array(rows)
  for (const [start, count] of copied) isCopied.fill(1, start, start + count)
  const rest: RowRuns[number][] = []
  const post: RowRuns[number][] = []
  for (let row = 0; row < rows; row++) appendRow(isCopied[row] ? post : rest, row)
  let nextRest = 0
  let nextPost = rowCount(rest)
  const order: RowRuns[number][] = []
  for (let row = 0; row < rows; row++) appendRow(order, isCopied[row] ? nextPost++ : nextRest++)
  return { graft: { cpt: rest, base: rest, post: rest }, post, cpt: [], order }
}
