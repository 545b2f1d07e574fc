import { foldLanes, LANES } from './_lane-sums.js'
import type { FloatArray } from './float-formats.js'

/**
 * Sums over pairs (a, b) of equal index, in F64. A pair with NaN or an infinity counts in `count` and `nonFinite` only.
 * Squares and products of values of F32 and narrower are exact; the order of the additions is that of `pairReducer`.
 */
export interface PairMoments {
  /** Pairs seen. */
  count: number
  sumA2: number
  sumB2: number
  dot: number
  /** Sum of (b - a)^2, the difference taken in F64. */
  sumDelta2: number
  /** Pairs with a != b (-0 equals +0). */
  changed: number
  maxAbsDelta: number
  nonFinite: number
}

/** The moments of no pairs. */
export function createMoments(): PairMoments {
  return { count: 0, sumA2: 0, sumB2: 0, dot: 0, sumDelta2: 0, changed: 0, maxAbsDelta: 0, nonFinite: 0 }
}

/** Adds the moments of the next block to `into`. Sums depend on the order of the blocks: go by index. */
export function addMoments(into: PairMoments, block: PairMoments): void {
  into.count += block.count
  into.sumA2 += block.sumA2
  into.sumB2 += block.sumB2
  into.dot += block.dot
  into.sumDelta2 += block.sumDelta2
  into.changed += block.changed
  into.maxAbsDelta = Math.max(into.maxAbsDelta, block.maxAbsDelta)
  into.nonFinite += block.nonFinite
}

/** A block of pairs half way: LANES partial sums of a^2, b^2, ab and (b - a)^2, and what has no order. */
export interface PairLanes {
  readonly a2: Float64Array
  readonly b2: Float64Array
  readonly dot: Float64Array
  readonly delta2: Float64Array
  changed: number
  maxAbsDelta: number
  nonFinite: number
}

export function createPairLanes(): PairLanes {
  const lanes = () => new Float64Array(LANES)
  return { a2: lanes(), b2: lanes(), dot: lanes(), delta2: lanes(), changed: 0, maxAbsDelta: 0, nonFinite: 0 }
}

/** Adds pair i to lane i mod LANES, for each i in turn. The definition that the SIMD loop must match bit for bit. */
export function addPairs(lanes: PairLanes, a: FloatArray, b: FloatArray): void {
  const { a2, b2, dot, delta2 } = lanes
  for (let i = 0; i < a.length; i++) {
    const x = a[i]!
    const y = b[i]!
    if (x - x + (y - y) !== 0) {
      lanes.nonFinite++
      continue
    }
    const lane = i % LANES
    a2[lane]! += x * x
    b2[lane]! += y * y
    dot[lane]! += x * y
    if (x === y) continue // adds nothing below
    const delta = y - x
    lanes.changed++
    delta2[lane]! += delta * delta
    lanes.maxAbsDelta = Math.max(lanes.maxAbsDelta, Math.abs(delta))
  }
}

/** The moments of a block of `count` pairs. */
export function momentsOf(lanes: PairLanes, count: number): PairMoments {
  return {
    count,
    sumA2: foldLanes(lanes.a2),
    sumB2: foldLanes(lanes.b2),
    dot: foldLanes(lanes.dot),
    sumDelta2: foldLanes(lanes.delta2),
    changed: lanes.changed,
    maxAbsDelta: lanes.maxAbsDelta,
    nonFinite: lanes.nonFinite,
  }
}
