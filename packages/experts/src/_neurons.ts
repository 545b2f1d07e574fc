import { randomValues } from '@polygraft/kernels'
import type { Expr } from '@polygraft/tensor'

/** How many of `neurons` a rate redraws: the nearest whole number. */
export function redrawnCount(neurons: number, rate: number): number {
  return Math.round(neurons * rate)
}

/**
 * A mask [I], not 0 for the neurons that stay: those with the largest of I uniform draws by (seed, name) in magnitude, so that
 * their number is exact and each is as likely as another.
 */
export function keptNeurons(neurons: number, rate: number, seed: number, name: string): Expr {
  const draws = new Float32Array(neurons)
  randomValues('uniform', 1, seed, name, 0, draws)
  const arg: Expr = { op: 'random', distribution: 'uniform', scale: 1, seed, name }
  return { op: 'keep', arg, ...thresholdOf(draws.map(Math.abs), neurons - redrawnCount(neurons, rate)) }
}

/** The magnitude of the `kept`-th largest draw, and the end of those that are kept at it. */
function thresholdOf(sizes: Float32Array, kept: number): { threshold: number; tieEnd: number } {
  if (kept === 0) return { threshold: 1, tieEnd: 0 } // every |draw| is below it, but for -1, which is at it
  const threshold = sizes.toSorted()[sizes.length - kept]!
  let rest = kept - sizes.filter((size) => size > threshold).length
  const tieEnd = sizes.findIndex((size) => size === threshold && --rest === 0) + 1
  return { threshold, tieEnd }
}
