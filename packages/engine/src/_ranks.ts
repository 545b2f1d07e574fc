import { createRankScratch, encode, type RankScratch, rankMagnitudes } from '@polygraft/kernels'
import { byteSize, type DType, type Expr, type FloatDType } from '@polygraft/tensor'

/** What ranking a row takes for each of its elements: its value and rank, both up to F64, and two orders. Unit: bytes. */
export const RANKS_BYTES = 8 + 8 + 2 * 4

/** `fill` of an evaluator, which yields the reads that it needs. */
type Fill<Read> = (
  expr: Expr,
  dtype: DType,
  begin: number,
  count: number,
  out: Uint8Array,
) => Generator<Read, void, void>

interface Row {
  readonly values: Float32Array | Float64Array
  readonly ranks: Float32Array | Float64Array
  readonly scratch: RankScratch
}

/** Elements [begin, begin + count) of a `ranks` expression, stored as `dtype` in `out`; the rows they reach into are computed whole. */
export function* fillRanks<Read>(
  fill: Fill<Read>,
  maxElements: number,
  { arg, width }: Extract<Expr, { op: 'ranks' }>,
  dtype: FloatDType,
  begin: number,
  count: number,
  out: Uint8Array,
): Generator<Read, void, void> {
  const wide = dtype === 'F64' ? 'F64' : 'F32'
  const { values, ranks, scratch } = createRow(wide, width)
  for (let at = begin; at < begin + count; ) {
    const [row, column] = [Math.floor(at / width), at % width]
    for (let from = 0; from < width; from += maxElements) {
      const length = Math.min(maxElements, width - from)
      const part = values.subarray(from, from + length)
      const bytes = new Uint8Array(part.buffer, part.byteOffset, part.byteLength)
      yield* fill(arg, wide, row * width + from, length, bytes)
    }
    rankMagnitudes(values, ranks, scratch)
    const length = Math.min(width - column, begin + count - at)
    const bytes = out.subarray(byteSize(dtype, at - begin), byteSize(dtype, at - begin + length))
    encode(dtype, ranks.subarray(column, column + length), bytes)
    at += length
  }
}

function createRow(wide: 'F32' | 'F64', width: number): Row {
  const create = () => (wide === 'F64' ? new Float64Array(width) : new Float32Array(width))
  return { values: create(), ranks: create(), scratch: createRankScratch(width) }
}
