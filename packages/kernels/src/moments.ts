import { ModelError } from '@polygraft/tensor'
import type { FloatArray } from './float-formats.js'

/**
 * Sums over pairs (a, b) of equal index, accumulated in F64 strictly in index order: the result does not depend on
 * how the elements are cut into tiles. A pair with NaN or an infinity counts in `count` and `nonFinite` only.
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

/**
 * Adds the pairs (a[i], b[i]) to `into`.
 * @throws ModelError 'bad-length' when a and b differ in length.
 */
export function pairMoments(a: FloatArray, b: FloatArray, into: PairMoments): void {
  if (a.length !== b.length)
    throw new ModelError({
      code: 'bad-length',
      message: 'A pair is missing',
      expected: `${a.length} elements`,
      received: `${b.length} elements`,
    })
  let { sumA2, sumB2, dot, sumDelta2, changed, maxAbsDelta, nonFinite } = into
  for (let i = 0; i < a.length; i++) {
    const x = a[i]!
    const y = b[i]!
    if (x - x !== 0 || y - y !== 0) {
      nonFinite++
      continue
    }
    sumA2 += x * x
    sumB2 += y * y
    dot += x * y
    if (x === y) continue // adds nothing below
    const delta = y - x
    const size = Math.abs(delta)
    changed++
    sumDelta2 += delta * delta
    if (size > maxAbsDelta) maxAbsDelta = size
  }
  Object.assign(into, {
    count: into.count + a.length,
    sumA2,
    sumB2,
    dot,
    sumDelta2,
    changed,
    maxAbsDelta,
    nonFinite,
  })
}
