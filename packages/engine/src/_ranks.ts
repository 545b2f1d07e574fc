import { createRankScratch, encode, type RankScratch, rankMagnitudes } from '@polygraft/kernels'
import { byteSize, type DType, type Expr, type FloatDType } from '@polygraft/tensor'

/** What ranking takes beside a tile: a row's values and ranks, both up to F64, and two orders of it. Unit: bytes for each element of a row. */
export const RANKS_BYTES = 8 + 8 + 2 * 4

/** `fill` of an evaluator, which yields the reads that it needs. */
type Fill<Read> = (
  expr: Expr,
  dtype: DType,
  begin: number,
  count: number,
  out: Uint8Array,
) => Generator<Read, void, void>

/** Buffers for some rows of one width. */
interface Rows {
  readonly wide: 'F32' | 'F64'
  readonly width: number
  /** As many whole rows as a tile holds, at least one. */
  readonly values: Float32Array | Float64Array
  readonly ranks: Float32Array | Float64Array
  readonly scratch: RankScratch
}

/** Computes elements of `ranks` expressions. */
export interface RanksFiller<Read> {
  fill(
    expr: Extract<Expr, { op: 'ranks' }>,
    dtype: FloatDType,
    begin: number,
    count: number,
    out: Uint8Array,
  ): Generator<Read, void, void>
}

/** @param maxElements the most that `fill` may be asked for. */
export function ranksFiller<Read>(fill: Fill<Read>, maxElements: number): RanksFiller<Read> {
  // Ranks may be ranked: what is in use is not here. The next tile mostly has rows of the same width.
  const idle: Rows[] = []

  function take(wide: Rows['wide'], width: number): Rows {
    const found = idle.findIndex((rows) => rows.wide === wide && rows.width === width)
    return found >= 0 ? idle.splice(found, 1)[0]! : createRows(wide, width, maxElements)
  }

  function* read(arg: Expr, wide: Rows['wide'], begin: number, values: Rows['values']) {
    for (let from = 0; from < values.length; from += maxElements) {
      const part = values.subarray(from, from + maxElements)
      const bytes = new Uint8Array(part.buffer, part.byteOffset, part.byteLength)
      yield* fill(arg, wide, begin + from, part.length, bytes)
    }
  }

  return {
    *fill({ arg, width }, dtype, begin, count, out) {
      const rows = take(dtype === 'F64' ? 'F64' : 'F32', width)
      const [first, end] = [Math.floor(begin / width), Math.ceil((begin + count) / width)]
      const step = rows.values.length / width
      for (let row = first; row < end; row += step) {
        const values = rows.values.subarray(0, Math.min(step, end - row) * width)
        yield* read(arg, rows.wide, row * width, values)
        for (let at = 0; at < values.length; at += width) {
          rankMagnitudes(values.subarray(at, at + width), rows.ranks, rows.scratch)
          const start = row * width + at
          const [from, to] = [Math.max(begin, start), Math.min(begin + count, start + width)]
          const bytes = out.subarray(byteSize(dtype, from - begin), byteSize(dtype, to - begin))
          encode(dtype, rows.ranks.subarray(from - start, to - start), bytes)
        }
      }
      idle.splice(0, idle.length, rows)
    },
  }
}

function createRows(wide: Rows['wide'], width: number, maxElements: number): Rows {
  const create = (length: number) => (wide === 'F64' ? new Float64Array(length) : new Float32Array(length))
  const elements = Math.max(1, Math.floor(maxElements / width)) * width
  return {
    wide,
    width,
    values: create(elements),
    ranks: create(width),
    scratch: createRankScratch(width),
  }
}
