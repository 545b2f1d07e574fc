/** Partial sums of a block: element i of the block adds to partial sum i mod LANES. */
export const LANES = 4

/** The sum of a block's partial sums, in the one order that every implementation takes. */
export function foldLanes(lanes: Float64Array): number {
  return lanes[0]! + lanes[1]! + (lanes[2]! + lanes[3]!)
}
