import { randomValues } from '@polygraft/kernels'

/** Draws in an order of their own, from (seed, name) alone. */
export interface Draws {
  /** In [0, 1). */
  next(): number
  below(limit: number): number
  pick<T>(from: readonly T[]): T
  /** `count` different ones, in random order. */
  sample<T>(from: readonly T[], count: number): T[]
}

const BLOCK = 1024

export function createDraws(seed: number, name: string): Draws {
  const block = new Float32Array(BLOCK)
  let [begin, at] = [0, BLOCK]
  const next = () => {
    if (at === BLOCK) {
      randomValues('uniform', 1, seed, name, begin, block)
      begin += BLOCK
      at = 0
    }
    return (block[at++]! + 1) / 2
  }
  const below = (limit: number) => Math.floor(next() * limit)
  return {
    next,
    below,
    pick: (from) => from[below(from.length)]!,
    sample(from, count) {
      const left = [...from]
      return Array.from({ length: count }, () => left.splice(below(left.length), 1)[0]!)
    },
  }
}
