import { type Code, doWhile, get, i8x16, i32, i32x4, moduleOf, set, v128 } from './_wasm.js'

/*
 * Magnitudes beside a window of them: one WebAssembly SIMD loop over F32 bits, without a branch. Elements of the window are
 * moved together by a byte shuffle, which a table gives for each of the 16 ways in which four lanes can be in it.
 */

/** Elements per turn. */
export const WINDOW_STEP = 8
const VECTORS = WINDOW_STEP / 4

/** Where things lie in memory. Unit: bytes. */
export const WINDOW_LAYOUT = {
  /** I32: `high`, `low - 1`, then the common magnitudes. */
  bounds: 0,
  /** Four I32 lanes each: elements above `high`, not finite, then of each common magnitude. */
  sums: 64,
  /** I32: one past the last byte of what was moved together. */
  end: 240,
  /** 16 shuffles of 16 bytes. */
  shuffles: 256,
  tiles: 512,
} as const

export const SIGN_LESS = 0x7fffffff
/** The bits of the largest finite F32. */
export const LARGEST_FINITE = 0x7f7fffff

/** The shuffles: which bytes to take for the lanes of each set, in order; zeros behind them. */
export function windowShuffles(): Uint8Array {
  const lanesOf = (set: number) => [0, 1, 2, 3].filter((lane) => (set >> lane) & 1)
  const bytesOf = (lane: number) => [0, 1, 2, 3].map((byte) => lane * 4 + byte)
  const nothing = Array<number>(16).fill(0x80)
  return Uint8Array.from(
    Array.from({ length: 16 }, (_, set) =>
      [...lanesOf(set).flatMap(bytesOf), ...nothing].slice(0, 16),
    ).flat(),
  )
}

// Parameters, then locals.
const [TURNS, INPUT, OUTPUT, LANES, FIRST_VECTOR] = [0, 1, 2, 3, 4]

/** `run(turns, address of the input, address of the output)`: at least one turn. @param common how many are counted apart. */
export function generateWindow(common: number): Uint8Array<ArrayBuffer> {
  const bounds = 2 + common
  const high = get(FIRST_VECTOR)
  const belowLow = get(FIRST_VECTOR + 1)
  const sum = (index: number) => FIRST_VECTOR + bounds + index
  const [magnitude, inside] = [sum(bounds), sum(bounds) + 1]
  const count = (index: number, lanes: Code) => set(sum(index), i32x4.sub(get(sum(index)), lanes))

  const vector = (at: number): Code => {
    const code = [
      ...set(magnitude, v128.and(v128.load(get(INPUT), at), v128.splat(SIGN_LESS))),
      ...set(inside, i32x4.gtS(get(magnitude), high)),
      ...count(0, get(inside)),
      ...count(1, i32x4.gtS(get(magnitude), v128.splat(LARGEST_FINITE))),
      ...set(inside, v128.andnot(i32x4.gtS(get(magnitude), belowLow), get(inside))),
    ]
    for (let i = 0; i < common; i++) {
      const equal = i32x4.eq(get(magnitude), get(FIRST_VECTOR + 2 + i))
      // Every common magnitude lies in the window, and no two are equal.
      code.push(...set(sum(bounds) + 2, equal), ...count(2 + i, get(sum(bounds) + 2)))
      code.push(...set(inside, v128.xor(get(inside), get(sum(bounds) + 2))))
    }
    const shuffle = v128.load(i32.shl(get(LANES), i32.const(4)), WINDOW_LAYOUT.shuffles)
    return [
      ...code,
      ...set(LANES, i32x4.bitmask(get(inside))),
      ...v128.store(get(OUTPUT), i8x16.swizzle(get(magnitude), shuffle), 0),
      ...set(OUTPUT, i32.add(get(OUTPUT), i32.shl(i32.popcnt(get(LANES)), i32.const(2)))),
    ]
  }

  const turn = [
    ...Array.from({ length: VECTORS }, (_, i) => vector(i * 16)).flat(),
    ...set(INPUT, i32.add(get(INPUT), i32.const(VECTORS * 16))),
    ...set(TURNS, i32.add(get(TURNS), i32.const(-1))),
  ]
  const atBound = (i: number) => v128.load32Splat(i32.const(0), WINDOW_LAYOUT.bounds + i * 4)
  const before = Array.from({ length: bounds }, (_, i) => set(FIRST_VECTOR + i, atBound(i))).flat()
  const after = Array.from({ length: bounds }, (_, i) =>
    v128.store(i32.const(0), get(sum(i)), WINDOW_LAYOUT.sums + i * 16),
  ).flat()
  const end = i32.store(i32.const(0), get(OUTPUT), WINDOW_LAYOUT.end)
  return moduleOf(3, 1, 2 * bounds + 3, [...before, ...doWhile(turn, get(TURNS)), ...after, ...end])
}
