import type { Gpu } from '@polygraft/webgpu'

/** One test of the suite that runs in Node and in a browser: it throws when it fails. */
export interface Case {
  readonly name: string
  run(gpu: Gpu): Promise<void>
  /** Why it cannot run on this device; undefined when it can. */
  skip?(gpu: Gpu): string | undefined
}

/** Repeatable random numbers, good enough for inputs. */
export function createRandom(seed: number) {
  let state = (seed * 2654435761 + 1) >>> 0
  const bits = () => {
    state ^= state << 13
    state ^= state >>> 17
    state = (state ^ (state << 5)) >>> 0
    return state
  }
  const below = (n: number) => bits() % n
  return {
    bits,
    below,
    choose: <T>(items: readonly T[]): T => items[below(items.length)]!,
    /** Uniform in [-1, 1). */
    values: (count: number): Float32Array<ArrayBuffer> =>
      Float32Array.from({ length: count }, () => bits() / 2 ** 31 - 1),
  }
}

export type Random = ReturnType<typeof createRandom>

export function check(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(message)
}

export function checkSame(actual: ArrayLike<number>, expected: ArrayLike<number>, what: string): void {
  check(actual.length === expected.length, `${what}: length ${actual.length}, expected ${expected.length}`)
  for (let i = 0; i < expected.length; i++)
    check(Object.is(actual[i], expected[i]), `${what}[${i}]: ${actual[i]}, expected ${expected[i]}`)
}

/** |actual - expected| <= tolerance * scale, for every element; NaN is never close. */
export function checkClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  what: string,
  scale: (i: number) => number = (i) => Math.max(1, Math.abs(expected[i]!)),
): void {
  check(actual.length === expected.length, `${what}: length ${actual.length}, expected ${expected.length}`)
  for (let i = 0; i < expected.length; i++) {
    const bound = tolerance * scale(i)
    const off = Math.abs(actual[i]! - expected[i]!)
    check(off <= bound, `${what}[${i}]: ${actual[i]}, expected ${expected[i]} within ${bound}`)
  }
}
