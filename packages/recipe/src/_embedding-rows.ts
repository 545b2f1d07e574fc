import { gatherRows, runsOf } from '@polygraft/delta'
import { type Expr, literal, type RowRuns } from '@polygraft/tensor'

/** Where one row [H] of an aligned vocabulary tensor comes from. */
export type RowSource =
  /** Rows of one or more models, by index; of several the mean. */
  | { readonly kind: 'rows'; readonly of: readonly (readonly [model: number, row: number])[] }
  | { readonly kind: 'zero' }
  /** The mean of the rows that are tokens. */
  | { readonly kind: 'mean' }

/** A vocabulary tensor of one model: [rows, width]. */
export interface VocabularyTensor {
  readonly expr: Expr
  readonly rows: number
}

/**
 * A tensor [sources.length, width] put together row by row. Rows of the same kind are gathered at once, so that the number of
 * nodes depends on the number of kinds, and only lists of runs grow with the vocabulary.
 * @param mean The row [width] of kind `mean`.
 */
export function rowsExpr(
  sources: readonly RowSource[],
  tensors: readonly VocabularyTensor[],
  width: number,
  mean: Expr | undefined,
): Expr {
  const groups = new Map<string, { readonly first: RowSource; readonly rows: number[] }>()
  for (const [row, source] of sources.entries()) {
    const key = keyOf(source)
    const group = groups.get(key) ?? { first: source, rows: [] }
    group.rows.push(row)
    groups.set(key, group)
  }
  const parts = [...groups.values()]
  const args = parts.map(({ first, rows }) =>
    groupExpr(
      first,
      rows.map((row) => sources[row]!),
      tensors,
      width,
      mean,
    ),
  )
  if (args.length === 1) return args[0]!
  const joined: Expr = { op: 'concat', args, sizes: parts.map(({ rows }) => rows.length * width) }
  return gatherRows(joined, width, orderOf(parts.map(({ rows }) => rows)), sources.length)
}

function keyOf(source: RowSource): string {
  return source.kind === 'rows' ? source.of.map(([model]) => model).join(' ') : source.kind
}

function groupExpr(
  first: RowSource,
  sources: readonly RowSource[],
  tensors: readonly VocabularyTensor[],
  width: number,
  mean: Expr | undefined,
): Expr {
  if (first.kind === 'zero') return repeated(zeroRow(width), width, sources.length)
  if (first.kind === 'mean') return repeated(mean!, width, sources.length)
  const gathered = first.of.map(([model], i) => {
    const rows = sources.map((source) => (source.kind === 'rows' ? source.of[i]![1] : 0))
    return gatherRows(tensors[model]!.expr, width, runsOf(rows), tensors[model]!.rows)
  })
  if (gathered.length === 1) return gathered[0]!
  return { op: 'scale', by: 1 / gathered.length, arg: { op: 'add', args: gathered } }
}

function repeated(arg: Expr, width: number, times: number): Expr {
  return { op: 'rows', arg, width, runs: Array.from({ length: times }, () => [0, 1] as const) }
}

function zeroRow(width: number): Expr {
  return literal(new Float32Array(width))
}

/** Where each output row lies once the rows are sorted by group. */
function orderOf(groups: readonly (readonly number[])[]): RowRuns {
  const place: number[] = []
  let next = 0
  for (const rows of groups) for (const row of rows) place[row] = next++
  return runsOf(place)
}
