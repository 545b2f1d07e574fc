import { foldLanes, LANES } from './_lane-sums.js'
import type { FloatArray } from './float-formats.js'

/** Tensors of a Gram matrix: its sums stay in registers or near them. */
export const MAX_GRAM = 32

/**
 * Sums of products of n tensors' elements of equal index, in F64. An index where any of them is NaN or infinite counts in
 * `nonFinite` only. Products of values of F32 and narrower are exact; the order of the additions is that of `gramReducer`.
 */
export interface GramProducts {
  /** Indices seen. */
  count: number
  /** Of (i, j), i <= j, row by row: (0, 0), (0, 1), ..., (1, 1), ... */
  readonly products: Float64Array
  nonFinite: number
}

/** Entries of the upper triangle of n tensors, diagonal included. */
export function pairsOf(n: number): number {
  return (n * (n + 1)) / 2
}

/** The products of no elements of n tensors. */
export function createGram(n: number): GramProducts {
  return { count: 0, products: new Float64Array(pairsOf(n)), nonFinite: 0 }
}

/** Adds the products of the next block to `into`. Sums depend on the order of the blocks: go by index. */
export function addGram(into: GramProducts, block: GramProducts): void {
  into.count += block.count
  for (const [i, product] of block.products.entries()) into.products[i]! += product
  into.nonFinite += block.nonFinite
}

/** A block half way: LANES partial sums of each product. */
export interface GramLanes {
  readonly products: readonly Float64Array[]
  nonFinite: number
}

export function createGramLanes(n: number): GramLanes {
  return { products: Array.from({ length: pairsOf(n) }, () => new Float64Array(LANES)), nonFinite: 0 }
}

/** Adds index i to lane i mod LANES, for each i in turn. The definition that the SIMD loop must match bit for bit. */
export function addProducts(lanes: GramLanes, operands: readonly FloatArray[]): void {
  for (let i = 0; i < operands[0]!.length; i++) {
    if (operands.some((operand) => !Number.isFinite(operand[i]!))) {
      lanes.nonFinite++
      continue
    }
    let pair = 0
    for (let a = 0; a < operands.length; a++)
      for (let b = a; b < operands.length; b++)
        lanes.products[pair++]![i % LANES]! += operands[a]![i]! * operands[b]![i]!
  }
}

/** The products of a block of `count` elements. */
export function gramOf(lanes: GramLanes, count: number): GramProducts {
  return { count, products: Float64Array.from(lanes.products, foldLanes), nonFinite: lanes.nonFinite }
}
