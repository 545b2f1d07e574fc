import { type RankWindow, rankWindow, type WindowCounter, windowCounter } from '@polygraft/kernels'
import type { Tensor } from '@polygraft/tensor'
import type { Kernels } from './_kernel-pool.js'
import type { Evaluator, ReadRequest } from './evaluate.js'

/** Where a segment's elements lie: see `WindowCounts` of `@polygraft/kernels`. */
export interface WindowResult {
  readonly above: number
  readonly nonFinite: number
  readonly common: readonly number[]
  /** Absent where there are too many. */
  readonly rest?: Uint32Array
}

/** The passes by which a threshold among F32 magnitudes is found: see `measureThresholds`. */
export interface RankPasses {
  /** Where the magnitude that a `share` of the `count` elements reaches must lie, if few elements lie there. */
  sample(tensor: Tensor, count: number, share: number): Generator<ReadRequest, RankWindow | undefined>
  /**
   * Elements [begin, begin + count) of each tensor, which are computed together: what lies above its window is counted, and what lies
   * in it collected.
   * @param isWhole all that lies there is wanted, however much.
   */
  windowed(
    tensors: readonly Tensor[],
    windows: readonly RankWindow[],
    elements: { readonly begin: number; readonly count: number; readonly isWhole?: boolean },
  ): Generator<ReadRequest, readonly WindowResult[]>
  /** How many elements of an F32 tile have the magnitude: far sooner counted than looked for. */
  countEqual(bytes: Uint8Array, magnitude: number): number
}

/** Magnitudes are collected up to one in so many elements. */
const WINDOW_SHARE = 8
/** Half width of a window, in standard deviations of a rank in the sample: neighbouring weights are not independent. */
const MARGIN = 8
/** A sample is runs of this many elements, evenly spread: one in each stretch, within limits. */
const SAMPLE_RUN = 256
const SAMPLE_STRETCH = 2 ** 18
const SAMPLE_RUNS = [64, 1024] as const

export function rankPasses(evaluator: Evaluator, tileElements: number, kernels: Kernels): RankPasses {
  let counter: WindowCounter | undefined
  const scratch: Uint32Array[] = []

  function collectorOf(index: number, room: number): Uint32Array {
    if (!scratch[index] || scratch[index].length < room) scratch[index] = new Uint32Array(room)
    return scratch[index]
  }

  return {
    *sample({ expr }, count, share) {
      const [least, most] = SAMPLE_RUNS
      const runs = Math.max(least, Math.min(most, Math.floor(count / SAMPLE_STRETCH)))
      const magnitudes = new Uint32Array(runs * SAMPLE_RUN)
      for (let run = 0; run < runs; run++) {
        const begin = Math.floor((run * (count - SAMPLE_RUN)) / runs)
        const out = new Uint8Array(magnitudes.buffer, run * SAMPLE_RUN * 4, SAMPLE_RUN * 4)
        yield* evaluator.fill(expr, 'F32', begin, SAMPLE_RUN, out)
      }
      return rankWindow(magnitudes, share, MARGIN, WINDOW_SHARE * 1.5)
    },
    *windowed(tensors, windows, { begin, count, isWhole }) {
      counter ??= windowCounter(kernels)
      const room = isWhole ? count : Math.ceil(count / WINDOW_SHARE)
      const sums = windows.map(({ common }, i) => createSums(common.length, collectorOf(i, room)))
      for (let done = 0; done < count; done += tileElements) {
        const size = Math.min(tileElements, count - done)
        const tiles = yield* evaluator.tile(tensors, begin + done, size, [])
        for (let i = 0; i < tiles.length; i++) {
          counter.input.set(tiles[i]!)
          addPart(sums[i]!, counter.run(size, windows[i]!), room)
        }
      }
      return sums.map(({ used, collected, ...counts }) =>
        used <= room ? { ...counts, rest: collected.slice(0, used) } : counts,
      )
    },
    countEqual(bytes, magnitude) {
      counter ??= windowCounter(kernels)
      counter.input.set(bytes)
      const window = { low: magnitude, high: magnitude, common: [magnitude] }
      return counter.run(bytes.length / 4, window).common[0]!
    },
  }
}

/** What a window has so far. */
interface Sums {
  above: number
  nonFinite: number
  readonly common: number[]
  readonly collected: Uint32Array
  /** Elements that belong into `collected`, which may be more than it holds. */
  used: number
}

function createSums(common: number, collected: Uint32Array): Sums {
  return { above: 0, nonFinite: 0, common: Array<number>(common).fill(0), collected, used: 0 }
}

function addPart(sums: Sums, part: ReturnType<WindowCounter['run']>, room: number): void {
  sums.above += part.above
  sums.nonFinite += part.nonFinite
  for (let i = 0; i < part.common.length; i++) sums.common[i]! += part.common[i]!
  if (sums.used + part.rest.length <= room) sums.collected.set(part.rest, sums.used)
  sums.used += part.rest.length
}
