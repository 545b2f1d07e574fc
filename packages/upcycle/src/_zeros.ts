import { type Expr, literal } from '@polygraft/tensor'

/** `rows * width` zeros, of which `width` are stored. */
export function zeros(rows: number, width: number): Expr {
  const row = literal(new Float32Array(width))
  if (rows === 1) return row
  return { op: 'rows', arg: row, width, runs: Array.from({ length: rows }, () => [0, 1] as const) }
}
