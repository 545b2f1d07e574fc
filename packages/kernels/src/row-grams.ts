import { foldLanes, LANES } from './_lane-sums.js'
import type { FloatArray } from './float-formats.js'
import { pairsOf } from './gram.js'

/** Takes a matrix in pieces, in order, and gives Gram matrices of its rows or columns. */
export interface RowGrams {
  /** The next elements of each of the tensors. */
  add(operands: readonly FloatArray[]): void
  /** The products of each row or column, group by group; see `GramProducts`. Whole rows must have been added. */
  products(): Float64Array
}

/** Elements of a row that are summed before they are added to the row's sum: as in `gramReducer`. */
const BLOCK = 64 * 1024

/**
 * Products of n tensors for each row of `width` elements: those that `gramReducer` gives of the row alone, its blocks in order.
 * An index where any of them is NaN or infinite is left out.
 */
export function rowGrams(n: number, width: number): RowGrams {
  const pairs = pairsOf(n)
  const done: Float64Array[] = []
  const lanes = Array.from({ length: pairs }, () => new Float64Array(LANES))
  let row = new Float64Array(pairs)
  let at = 0
  const endBlock = () => {
    for (const [pair, sums] of lanes.entries()) {
      row[pair]! += foldLanes(sums)
      sums.fill(0)
    }
  }
  return {
    add(operands) {
      for (let i = 0; i < operands[0]!.length; i++) {
        if (areFinite(operands, i)) {
          let pair = 0
          for (let a = 0; a < n; a++)
            for (let b = a; b < n; b++) lanes[pair++]![at % LANES]! += operands[a]![i]! * operands[b]![i]!
        }
        at++
        if (at % BLOCK === 0 || at === width) endBlock()
        if (at < width) continue
        done.push(row)
        row = new Float64Array(pairs)
        at = 0
      }
    },
    products: () => concatenated(done, pairs),
  }
}

/** Products of n tensors for each column: over the rows that are added, in their order. */
export function columnGrams(n: number, width: number): RowGrams {
  const pairs = pairsOf(n)
  const sums = new Float64Array(width * pairs)
  let at = 0
  return {
    add(operands) {
      for (let i = 0; i < operands[0]!.length; i++, at = (at + 1) % width) {
        if (!areFinite(operands, i)) continue
        let index = at * pairs
        for (let a = 0; a < n; a++)
          for (let b = a; b < n; b++) sums[index++]! += operands[a]![i]! * operands[b]![i]!
      }
    },
    products: () => sums,
  }
}

function areFinite(operands: readonly FloatArray[], i: number): boolean {
  for (const operand of operands) if (operand[i]! - operand[i]! !== 0) return false
  return true
}

function concatenated(parts: readonly Float64Array[], size: number): Float64Array {
  const all = new Float64Array(parts.length * size)
  for (const [i, part] of parts.entries()) all.set(part, i * size)
  return all
}
