import type { RowRuns } from '@polygraft/tensor'

type Run = RowRuns[number]

/** Adds one row at the end of `runs`, in place; it lengthens the last run where it continues it. */
export function appendRow(runs: Run[], row: number): void {
  const last = runs.at(-1)
  if (last && last[0] + last[1] === row) runs[runs.length - 1] = [last[0], last[1] + 1]
  else runs.push([row, 1])
}

/** Number of rows in `runs`. */
export function rowCount(runs: RowRuns): number {
  return runs.reduce((sum, [, count]) => sum + count, 0)
}
