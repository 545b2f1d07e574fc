import { byteSize, type FloatDType, ModelError } from '@polygraft/tensor'
import { LANES } from './_lane-sums.js'
import {
  GRAM_SLOTS,
  generateGram,
  generatePairReduction,
  generateStatistics,
  PAIR_SLOTS,
  REDUCE_STEP,
  STATISTICS_SLOTS,
} from './_reduce-codegen.js'
import { createMemory, instantiate, simdAvailable } from './_wasm-run.js'
import { decode, type FloatArray } from './float-formats.js'
import { addProducts, createGramLanes, type GramLanes, type GramProducts, gramOf, pairsOf } from './gram.js'
import { addPairs, createPairLanes, momentsOf, type PairLanes, type PairMoments } from './moments.js'
import {
  addValues,
  createStatisticsLanes,
  type Statistics,
  type StatisticsLanes,
  statisticsOf,
} from './statistics.js'

/**
 * Elements of a block, the unit of every reduction: element i of a block adds to partial sum i mod 4, the four are added
 * as (0 + 1) + (2 + 3), and blocks are added in order of their index. A constant, so that sums depend neither on tiles nor
 * on threads nor on the machine.
 */
export const BLOCK_ELEMENTS = 64 * 1024

/** Reduces one block at a time. Not reentrant; another thread makes its own. */
export interface BlockReducer<Result> {
  /** To be filled before `run`: operand i as stored, from byte 0. The views stay valid. */
  readonly inputs: readonly Uint8Array[]
  /**
   * The result over elements [0, count).
   * @throws ModelError 'bad-length' when count exceeds BLOCK_ELEMENTS.
   */
  run(count: number): Result
}

/** 'simd' where it can be had (never for F64), or the TypeScript definition. Both give the same bits. */
export type Implementation = 'simd' | 'reference'

/** Moments of pairs stored as `dtypes`; the values are taken as they are, in F32 or, where either is F64, in F64. */
export function pairReducer(
  dtypes: readonly [FloatDType, FloatDType],
  implementation: Implementation = 'simd',
): BlockReducer<PairMoments> {
  return reducer<PairLanes, PairMoments>(dtypes, implementation, {
    name: 'pair',
    slots: PAIR_SLOTS.end,
    code: () => generatePairReduction(dtypes),
    createLanes: createPairLanes,
    collect: collectPairs,
    add: (lanes, [a, b]) => addPairs(lanes, a!, b!),
    result: momentsOf,
  })
}

/** Statistics of elements stored as `dtype`. */
export function statisticsReducer(
  dtype: FloatDType,
  implementation: Implementation = 'simd',
): BlockReducer<Statistics> {
  return reducer<StatisticsLanes, Statistics>([dtype], implementation, {
    name: 'statistics',
    slots: STATISTICS_SLOTS.end,
    code: () => generateStatistics(dtype),
    createLanes: createStatisticsLanes,
    collect: collectStatistics,
    add: (lanes, [values]) => addValues(lanes, values!),
    result: statisticsOf,
  })
}

/** Products of every two tensors stored as `dtypes`: at least one, at most MAX_GRAM. */
export function gramReducer(
  dtypes: readonly FloatDType[],
  implementation: Implementation = 'simd',
): BlockReducer<GramProducts> {
  return reducer<GramLanes, GramProducts>(dtypes, implementation, {
    name: 'gram',
    slots: GRAM_SLOTS.products + 2 * pairsOf(dtypes.length),
    code: () => generateGram(dtypes),
    createLanes: () => createGramLanes(dtypes.length),
    collect: (memory, count) => ({
      products: Array.from({ length: pairsOf(dtypes.length) }, (_, i) =>
        lanesAt(memory, GRAM_SLOTS.products + 2 * i),
      ),
      nonFinite: count - countAt(memory, GRAM_SLOTS.finite),
    }),
    add: addProducts,
    result: gramOf,
  })
}

/** What a reduction is: a loop over whole turns, what it leaves, and the definition for the elements after it. */
interface Reduction<Lanes, Result> {
  readonly name: string
  /** Accumulators of 16 bytes each that the loop leaves. */
  readonly slots: number
  code(): Uint8Array<ArrayBuffer>
  createLanes(): Lanes
  /** The lanes that the loop left in memory after `count` elements. */
  collect(memory: ArrayBuffer, count: number): Lanes
  add(lanes: Lanes, operands: readonly FloatArray[]): void
  result(lanes: Lanes, count: number): Result
}

function reducer<Lanes, Result>(
  dtypes: readonly FloatDType[],
  implementation: Implementation,
  { name, slots, code, createLanes, collect, add, result }: Reduction<Lanes, Result>,
): BlockReducer<Result> {
  const bytesOf = (dtype: FloatDType) => byteSize(dtype, BLOCK_ELEMENTS)
  const slotBytes = Math.ceil((slots * 16) / 256) * 256
  const total = dtypes.reduce((sum, dtype) => sum + bytesOf(dtype), slotBytes)
  const isSimd = implementation === 'simd' && simdAvailable() && !dtypes.includes('F64')
  const memory = isSimd ? createMemory(total)! : { buffer: new ArrayBuffer(total) }
  const run = isSimd ? instantiate(`${name} ${dtypes}`, code, memory) : undefined
  const sizes = dtypes.map(bytesOf)
  const bases = sizes.map((_, i) => sizes.slice(0, i).reduce((sum, size) => sum + size, slotBytes))
  const inputs = dtypes.map((dtype, i) => new Uint8Array(memory.buffer, bases[i], bytesOf(dtype)))
  const values = dtypes.map(() =>
    dtypes.includes('F64') ? new Float64Array(CHUNK) : new Float32Array(CHUNK),
  )

  /** Elements [begin, end) by the definition. */
  function addRest(lanes: Lanes, begin: number, end: number): void {
    for (let at = begin; at < end; at += CHUNK) {
      const until = Math.min(end, at + CHUNK)
      const operands = values.map((all) => all.subarray(0, until - at))
      for (const [i, dtype] of dtypes.entries())
        decode(dtype, inputs[i]!.subarray(byteSize(dtype, at), byteSize(dtype, until)), operands[i]!)
      add(lanes, operands)
    }
  }

  return {
    inputs,
    run(count) {
      if (!(count >= 0 && count <= BLOCK_ELEMENTS)) throw tooLong(count)
      const whole = run ? count - (count % REDUCE_STEP) : 0
      if (run && whole > 0) run(whole / REDUCE_STEP, ...bases)
      const lanes = whole > 0 ? collect(memory.buffer, whole) : createLanes()
      addRest(lanes, whole, count)
      return result(lanes, count)
    },
  }
}

/** Elements decoded at a time: a multiple of LANES, so that lanes go on where they were. */
const CHUNK = 1024

function collectPairs(memory: ArrayBuffer, count: number): PairLanes {
  return {
    a2: lanesAt(memory, PAIR_SLOTS.a2),
    b2: lanesAt(memory, PAIR_SLOTS.b2),
    dot: lanesAt(memory, PAIR_SLOTS.dot),
    delta2: lanesAt(memory, PAIR_SLOTS.delta2),
    changed: countAt(memory, PAIR_SLOTS.changed),
    maxAbsDelta: Math.max(...new Float64Array(memory, PAIR_SLOTS.maxAbsDelta * 16, 2)),
    nonFinite: count - countAt(memory, PAIR_SLOTS.finite),
  }
}

function collectStatistics(memory: ArrayBuffer, count: number): StatisticsLanes {
  return {
    sum: lanesAt(memory, STATISTICS_SLOTS.sum),
    abs: lanesAt(memory, STATISTICS_SLOTS.abs),
    squares: lanesAt(memory, STATISTICS_SLOTS.squares),
    min: Math.min(...new Float32Array(memory, STATISTICS_SLOTS.min * 16, 4)),
    max: Math.max(...new Float32Array(memory, STATISTICS_SLOTS.max * 16, 4)),
    zeros: countAt(memory, STATISTICS_SLOTS.zeros),
    nonFinite: count - countAt(memory, STATISTICS_SLOTS.finite),
  }
}

/** Two accumulators as LANES partial sums in order: the first holds 0 and 2, the second 1 and 3. */
function lanesAt(memory: ArrayBuffer, slot: number): Float64Array {
  const [zero, two, one, three] = new Float64Array(memory, slot * 16, LANES)
  return Float64Array.of(zero!, one!, two!, three!)
}

function countAt(memory: ArrayBuffer, slot: number): number {
  return new Int32Array(memory, slot * 16, 4).reduce((sum, lane) => sum + lane, 0)
}

function tooLong(count: number): ModelError {
  return new ModelError({
    code: 'bad-length',
    message: 'A block does not hold that many elements',
    expected: `0 to ${BLOCK_ELEMENTS}`,
    received: `${count}`,
  })
}
