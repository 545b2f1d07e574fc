const BYTES = ['B', 'kB', 'MB', 'GB', 'TB']
const COUNTS = ['', 'k', 'M', 'B', 'T']

/** A byte count with a decimal unit, three figures: `1.23 GB`. */
export function formatBytes(bytes: number): string {
  return bytes < 1000 ? `${bytes} B` : inUnits(bytes, BYTES)
}

/** An element count: `8.03 B`, `1.23 M`, `512`. */
export function formatCount(count: number): string {
  return count < 10_000 ? `${count}` : inUnits(count, COUNTS)
}

/** Three figures in the largest unit that leaves a whole part; 999,999 is 1.00 M, not 1000 k. */
function inUnits(value: number, units: readonly string[]): string {
  const digits = Math.floor(Math.log10(Number(value.toPrecision(3))))
  const power = Math.min(units.length - 1, Math.floor(digits / 3))
  return `${(value / 1000 ** power).toPrecision(3)} ${units[power]}`
}

/** `1 shard`, `2 shards`. */
export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}

/**
 * A share of one as per cent, with more figures near both ends: `12.3 %`, `0.0041 %`, `99.9992 %`. 0 % is said of nothing
 * and 100 % of everything only.
 */
export function formatShare(share: number): string {
  const percent = share * 100
  if (percent === 0 || percent === 100) return `${percent} %`
  if (percent < 0.1) return `${percent.toPrecision(2)} %`
  // Digits up to the first one that is not 9; the subtraction is inexact far behind it.
  const figures = Math.min(9, Math.max(1, Math.ceil(-Math.log10(100 - percent) - 1e-6)))
  return `${percent.toFixed(figures)} %`
}

/** A real number for tables, five figures at most. */
export function formatNumber(value: number): string {
  if (value === 0 || !Number.isFinite(value)) return `${value}`
  const size = Math.abs(value)
  return size < 1e-3 || size >= 1e5 ? value.toExponential(2) : `${Number(value.toPrecision(5))}`
}

/** Rows as aligned columns; the first row is the head. Columns whose cells all look like numbers are set right. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const columns = rows[0]?.map((_, c) => rows.map((row) => row[c] ?? '')) ?? []
  const widths = columns.map((cells) => Math.max(...cells.map((cell) => cell.length)))
  const numeric = columns.map((cells) => cells.slice(1).every((cell) => /^[-+\d.]/.test(cell) || cell === ''))
  const line = (row: readonly string[]) =>
    row.map((cell, c) => (numeric[c] ? cell.padStart(widths[c]!) : cell.padEnd(widths[c]!))).join('  ')
  return rows.map((row) => line(row).trimEnd()).join('\n')
}
