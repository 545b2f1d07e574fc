import { foldLanes, LANES } from './_lane-sums.js'
import type { FloatArray } from './float-formats.js'

/**
 * What a tensor's values are like, in F64. NaN and infinities count in `count` and `nonFinite` only. The order of the
 * additions is that of `statisticsReducer`.
 */
export interface Statistics {
  /** Elements seen. */
  count: number
  sum: number
  /** L1 norm. */
  sumAbs: number
  /** Square of the L2 norm. */
  sumSquares: number
  /** Infinity where no element is finite. */
  min: number
  /** -Infinity where no element is finite. */
  max: number
  /** Elements that are +0 or -0. */
  zeros: number
  nonFinite: number
}

/** The statistics of no elements. */
export function createStatistics(): Statistics {
  const [min, max] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]
  return { count: 0, sum: 0, sumAbs: 0, sumSquares: 0, min, max, zeros: 0, nonFinite: 0 }
}

/** Adds the statistics of the next block to `into`. Sums depend on the order of the blocks: go by index. */
export function addStatistics(into: Statistics, block: Statistics): void {
  into.count += block.count
  into.sum += block.sum
  into.sumAbs += block.sumAbs
  into.sumSquares += block.sumSquares
  into.min = Math.min(into.min, block.min)
  into.max = Math.max(into.max, block.max)
  into.zeros += block.zeros
  into.nonFinite += block.nonFinite
}

/** A block half way: LANES partial sums of x, |x| and x^2, and what has no order. */
export interface StatisticsLanes {
  readonly sum: Float64Array
  readonly abs: Float64Array
  readonly squares: Float64Array
  min: number
  max: number
  zeros: number
  nonFinite: number
}

export function createStatisticsLanes(): StatisticsLanes {
  const lanes = () => new Float64Array(LANES)
  const { min, max } = createStatistics()
  return { sum: lanes(), abs: lanes(), squares: lanes(), min, max, zeros: 0, nonFinite: 0 }
}

/** Adds element i to lane i mod LANES, for each i in turn. The definition that the SIMD loop must match bit for bit. */
export function addValues(lanes: StatisticsLanes, values: FloatArray): void {
  const { sum, abs, squares } = lanes
  for (let i = 0; i < values.length; i++) {
    const x = values[i]!
    if (x - x !== 0) {
      lanes.nonFinite++
      continue
    }
    const lane = i % LANES
    sum[lane]! += x
    abs[lane]! += Math.abs(x)
    squares[lane]! += x * x
    if (x === 0) lanes.zeros++
    lanes.min = Math.min(lanes.min, x)
    lanes.max = Math.max(lanes.max, x)
  }
}

/** The statistics of a block of `count` elements. */
export function statisticsOf(lanes: StatisticsLanes, count: number): Statistics {
  return {
    count,
    sum: foldLanes(lanes.sum),
    sumAbs: foldLanes(lanes.abs),
    sumSquares: foldLanes(lanes.squares),
    min: lanes.min,
    max: lanes.max,
    zeros: lanes.zeros,
    nonFinite: lanes.nonFinite,
  }
}
