import { decode, encode, type Implementation, randomMask, randomValues } from '@polygraft/kernels'
import { byteSize, type Expr, type FloatDType, literalValues } from '@polygraft/tensor'

type Of<Op extends Expr['op']> = Extract<Expr, { op: Op }>

/** A piece of a gathered tile: elements [from, from + length) of the argument go to `offset` of the tile. */
export interface RowCut {
  readonly offset: number
  readonly from: number
  readonly length: number
}

const rowStarts = new WeakMap<Expr, Float64Array>()
const literals = new WeakMap<Expr, Float32Array>()
/** Used again: a new one for each tile would wait for the garbage collector by the hundred. */
let drawn = new Float32Array(0)

/** The pieces that elements [begin, begin + count) of a `rows` expression are gathered from, in order. */
export function* rowCuts(expr: Of<'rows'>, begin: number, count: number): Generator<RowCut> {
  const starts = startsOf(expr)
  const end = begin + count
  for (let run = lastAtMost(starts, begin); run < expr.runs.length && starts[run]! < end; run++) {
    const [row, rows] = expr.runs[run]!
    const from = Math.max(begin, starts[run]!)
    const to = Math.min(end, starts[run]! + rows * expr.width)
    if (from < to)
      yield { offset: from - begin, from: row * expr.width + from - starts[run]!, length: to - from }
  }
}

/** The pieces of `columns`: one for each row that elements [begin, begin + count) reach into. */
export function* columnCuts(expr: Of<'columns'>, begin: number, count: number): Generator<RowCut> {
  const kept = expr.end - expr.begin
  for (let at = begin; at < begin + count; ) {
    const [row, column] = [Math.floor(at / kept), at % kept]
    const length = Math.min(kept - column, begin + count - at)
    yield { offset: at - begin, from: row * expr.width + expr.begin + column, length }
    at += length
  }
}

/** A piece of a spread tile: as a `RowCut`, or where `each` is above 1, one element to be repeated over all of it. */
export interface SpreadCut extends RowCut {
  readonly repeats: boolean
}

/** The pieces that elements [begin, begin + count) of a `spread` expression are made of. */
export function* spreadCuts(expr: Of<'spread'>, begin: number, count: number): Generator<SpreadCut> {
  const repeats = expr.each > 1
  const period = repeats ? expr.each : expr.count
  for (let at = begin; at < begin + count; ) {
    const length = Math.min(period - (at % period), begin + count - at)
    const from = repeats ? Math.floor(at / expr.each) % expr.count : at % expr.count
    yield { offset: at - begin, from, length, repeats }
    at += length
  }
}

/** Elements [begin, begin + count) of a `random` expression, stored as `dtype` in `out`. */
export function fillRandom(
  expr: Of<'random'>,
  dtype: FloatDType,
  begin: number,
  count: number,
  out: Uint8Array,
): void {
  if (drawn.length < count) drawn = new Float32Array(count)
  const values = drawn.subarray(0, count)
  randomValues(expr.distribution, expr.scale, expr.seed, expr.name, begin, values)
  encode(dtype, values, out.subarray(0, byteSize(dtype, count)))
}

/** Elements [begin, begin + count) of a `mask`, stored as `dtype` in `out`. */
export function fillMask(
  expr: Of<'mask'>,
  dtype: FloatDType,
  begin: number,
  count: number,
  out: Uint8Array,
  implementation: Implementation,
): void {
  const isStored = dtype === 'BF16'
  const mask = isStored ? out.subarray(0, count * 2) : new Uint8Array(count * 2)
  randomMask(expr.density, expr.seed, expr.name, begin, mask, implementation)
  if (isStored) return
  const values = new Float32Array(count)
  decode('BF16', mask, values)
  encode(dtype, values, out.subarray(0, byteSize(dtype, count)))
}

/** Elements [begin, begin + count) of a `literal`, stored as `dtype` in `out`. */
export function fillLiteral(
  expr: Of<'literal'>,
  dtype: FloatDType,
  begin: number,
  count: number,
  out: Uint8Array,
): void {
  const values = literals.get(expr) ?? literalValues(expr)
  literals.set(expr, values)
  encode(dtype, values.subarray(begin, begin + count), out.subarray(0, byteSize(dtype, count)))
}

/** Element index at which each run begins. Kept with the expression: a vocabulary can have 10^5 runs. */
function startsOf(expr: Of<'rows'>): Float64Array {
  const known = rowStarts.get(expr)
  if (known) return known
  const starts = new Float64Array(expr.runs.length)
  for (let i = 1; i < starts.length; i++) starts[i] = starts[i - 1]! + expr.runs[i - 1]![1] * expr.width
  rowStarts.set(expr, starts)
  return starts
}

/** Index of the last entry of ascending `starts` that is <= `value`. */
function lastAtMost(starts: Float64Array, value: number): number {
  let low = 0
  let high = starts.length
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (starts[middle]! <= value) low = middle
    else high = middle
  }
  return low
}
