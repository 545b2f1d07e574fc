import { byteSize, ModelError } from '@polygraft/tensor'
import { createMemory, instantiate, simdAvailable } from './_wasm-run.js'
import {
  generateWindow,
  LARGEST_FINITE,
  SIGN_LESS,
  WINDOW_LAYOUT,
  WINDOW_STEP,
  windowShuffles,
} from './_window-codegen.js'
import { BLOCK_ELEMENTS, type Implementation } from './reduce.js'

/*
 * The k-th largest F32 magnitude in one pass: a sample tells between which two it must lie; what is above is counted, what
 * lies between is collected. The counts show whether the sample was right. Magnitudes are the bits of |x|, which order as |x| does.
 */

/** Magnitudes [low, high], both finite. */
export interface RankWindow {
  readonly low: number
  readonly high: number
  /** Some of them, each once: so frequent that they are counted and not collected. At most MAX_COMMON. */
  readonly common: readonly number[]
}

/** The deltas of weights in 16 bits have few values, each a share of all elements. */
export const MAX_COMMON = 4

/** Where elements lie. */
export interface WindowCounts {
  /** Finite ones above the window. */
  readonly above: number
  readonly nonFinite: number
  /** Of each common magnitude. */
  readonly common: readonly number[]
  /** The window's other magnitudes, in order of index. A view that holds until the next run. */
  readonly rest: Uint32Array
}

/** Counts one block at a time. Not reentrant. */
export interface WindowCounter {
  /** To be filled before `run` with F32 elements, from byte 0. */
  readonly input: Uint8Array
  /**
   * Over elements [0, count).
   * @throws ModelError 'bad-length' when count exceeds BLOCK_ELEMENTS.
   */
  run(count: number, window: RankWindow): WindowCounts
}

export function windowCounter(implementation: Implementation = 'simd'): WindowCounter {
  const bytes = byteSize('F32', BLOCK_ELEMENTS)
  const total = WINDOW_LAYOUT.tiles + 2 * bytes + 16 // the last store reaches beyond what it moves
  const isSimd = implementation === 'simd' && simdAvailable()
  const memory = isSimd ? createMemory(total)! : { buffer: new ArrayBuffer(total) }
  const { buffer } = memory
  const magnitudes = new Uint32Array(buffer, WINDOW_LAYOUT.tiles, BLOCK_ELEMENTS)
  const collectedAt = WINDOW_LAYOUT.tiles + bytes
  const collected = new Uint32Array(buffer, collectedAt, BLOCK_ELEMENTS)
  const loops = new Map<number, (...args: number[]) => void>()
  const bounds = new Int32Array(buffer, WINDOW_LAYOUT.bounds, 2 + MAX_COMMON)
  const lanes = new Int32Array(buffer, WINDOW_LAYOUT.sums, 4 * (2 + MAX_COMMON))
  const endOf = new Int32Array(buffer, WINDOW_LAYOUT.end, 1)
  new Uint8Array(buffer).set(windowShuffles(), WINDOW_LAYOUT.shuffles)

  /** The loop over elements [0, count): whole turns. Adds to `sums`, and gives how many were collected. */
  function runWhole(count: number, { low, high, common }: RankWindow, sums: number[]): number {
    const loop =
      loops.get(common.length) ??
      instantiate(`window ${common.length}`, () => generateWindow(common.length), memory)
    loops.set(common.length, loop)
    bounds[0] = high
    bounds[1] = low - 1
    for (let i = 0; i < common.length; i++) bounds[2 + i] = common[i]!
    loop(count / WINDOW_STEP, WINDOW_LAYOUT.tiles, collectedAt)
    for (let i = 0; i < 4 * sums.length; i++) sums[i >> 2]! += lanes[i]!
    return (endOf[0]! - collectedAt) / 4
  }

  return {
    input: new Uint8Array(buffer, WINDOW_LAYOUT.tiles, bytes),
    run(count, window) {
      if (!(count >= 0 && count <= BLOCK_ELEMENTS)) throw tooLong(count)
      const sums = Array<number>(2 + window.common.length).fill(0)
      const whole = isSimd ? count - (count % WINDOW_STEP) : 0
      const used = whole > 0 ? runWhole(whole, window, sums) : 0
      const end =
        whole < count ? addRest(magnitudes.subarray(whole, count), window, sums, collected, used) : used
      return {
        above: sums[0]! - sums[1]!,
        nonFinite: sums[1]!,
        common: sums.slice(2),
        rest: collected.subarray(0, end),
      }
    },
  }
}

/** The definition. Adds to `sums`, appends to `collected` from `used` on, and gives how many entries that has then. */
function addRest(
  elements: Uint32Array,
  { low, high, common }: RankWindow,
  sums: number[],
  collected: Uint32Array,
  used: number,
): number {
  let end = used
  for (const bits of elements) {
    const magnitude = bits & SIGN_LESS
    const which = common.indexOf(magnitude)
    if (magnitude > high) sums[0]!++
    if (magnitude > LARGEST_FINITE) sums[1]!++
    if (which >= 0) sums[2 + which]!++
    else if (magnitude >= low && magnitude <= high) collected[end++] = magnitude
  }
  return end
}

/**
 * Where the magnitude that a `share` of all elements reaches lies, judged by some of them; undefined where more than one in
 * `mostCollected` elements would have to be collected.
 * @param margin half the window's width, in standard deviations of a rank in the sample.
 */
export function rankWindow(
  sample: Uint32Array,
  share: number,
  margin: number,
  mostCollected: number,
): RankWindow | undefined {
  const sorted = sample.map((bits) => bits & SIGN_LESS).sort()
  const half = margin * Math.sqrt(sorted.length * share * (1 - share)) + margin
  const at = (fromTop: number) =>
    sorted[Math.max(0, Math.min(sorted.length - 1, Math.floor(sorted.length - fromTop)))]!
  const [low, high] = [at(sorted.length * share + half), at(sorted.length * share - half)]
  if (high > LARGEST_FINITE) return undefined
  const counts = new Map<number, number>()
  for (const magnitude of sorted)
    if (magnitude >= low && magnitude <= high) counts.set(magnitude, (counts.get(magnitude) ?? 0) + 1)
  const common = [...counts]
    .filter(([, count]) => count * COMMON_SHARE >= sorted.length)
    .sort(([, a], [, b]) => b - a)
    .slice(0, MAX_COMMON)
  const counted = common.reduce((sum, [, count]) => sum + count, 0)
  const collected = [...counts.values()].reduce((sum, count) => sum + count, -counted)
  if (collected * mostCollected >= sorted.length) return undefined
  return { low, high, common: common.map(([magnitude]) => magnitude) }
}

/** A magnitude is common from one in so many elements on. */
const COMMON_SHARE = 256

function tooLong(count: number): ModelError {
  return new ModelError({
    code: 'bad-length',
    message: 'A block does not hold that many elements',
    expected: `0 to ${BLOCK_ELEMENTS}`,
    received: `${count}`,
  })
}
