import type { LowRankFactors, LowRankTarget, Measures, MergeTargets } from '@polygraft/delta'
import {
  evaluate,
  type MeasureOptions,
  measureLowRank,
  measureRowNorms,
  measureStatistics,
  measureTargets,
} from '@polygraft/engine'
import { numel, type Source, type SourceId, type Tensor } from '@polygraft/tensor'
import type { RedrawnStatistics } from '@polygraft/upcycle'
import type { MeasureMeanRow } from './align-models.js'

/** What building has to see of values. */
export interface Measuring {
  targets(targets: MergeTargets, sources: ReadonlyMap<SourceId, Source>): Promise<Measures>
  meanRow: MeasureMeanRow
  /** L2 norms of the rows of matrices, which DoRA adapters are relative to. */
  rowNorms(
    tensors: ReadonlyMap<string, Tensor>,
    sources: ReadonlyMap<SourceId, Source>,
  ): Promise<ReadonlyMap<string, Float32Array>>
  /** Sums of elements, which Drop-Upcycling draws new ones by. */
  statistics(
    tensors: ReadonlyMap<string, Tensor>,
    sources: ReadonlyMap<SourceId, Source>,
  ): Promise<ReadonlyMap<string, RedrawnStatistics>>
  /** Factors of matrices that are cut to a low rank. */
  lowRank(
    targets: ReadonlyMap<string, LowRankTarget>,
    sources: ReadonlyMap<SourceId, Source>,
  ): Promise<ReadonlyMap<string, LowRankFactors>>
}

/** Measures with the engine: thresholds, norms and products in passes over the inputs. */
export function engineMeasuring(options: MeasureOptions = {}): Measuring {
  return {
    targets: (targets, sources) => measureTargets(targets, sources, options),
    meanRow: (tensor, rows, sources) => meanRow(tensor, rows, sources, options.signal),
    rowNorms: (tensors, sources) => measureRowNorms(tensors, sources, options),
    statistics: (tensors, sources) => measureStatistics(tensors, sources, options),
    lowRank: (targets, sources) => measureLowRank(targets, sources, options),
  }
}

/**
 * Reads nothing and makes every value up: what is built with it has the tensors, shapes and costs of the real thing and not its
 * numbers. For dry runs.
 */
export const dryMeasuring: Measuring = {
  targets: async ({ thresholds, statistics, grams, divergences }) => ({
    thresholds: mapValues(thresholds, ({ tensor }) => ({ threshold: 1, tieEnd: numel(tensor.shape) })),
    statistics: mapValues(statistics, ({ shape }) => ({
      sumAbs: 1,
      sumSquares: 1,
      count: numel(shape),
      zeros: 0,
    })),
    grams: mapValues(grams, ({ tensors, by, width = 1 }) => {
      const count = by === 'columns' ? width : by === 'rows' ? numel(tensors[0]!.shape) / width : 1
      return { products: Array.from({ length: count }, () => identity(tensors.length)).flat() }
    }),
    divergences: mapValues(divergences, ({ a, width }) => new Float64Array(numel(a.shape) / width).fill(1)),
  }),
  meanRow: async ({ shape }) => new Float32Array(shape[1]!),
  rowNorms: async (tensors) => mapValues(tensors, ({ shape }) => new Float32Array(shape[0]!).fill(1)),
  statistics: async (tensors) =>
    mapValues(tensors, ({ shape }) => ({ sum: 0, sumSquares: numel(shape), nonFinite: 0 })),
  lowRank: async (targets) => mapValues(targets, largestFactors),
}

function largestFactors({ tensor: { shape }, rank: most }: LowRankTarget): LowRankFactors {
  const [rows, width] = shape as [number, number]
  const rank = Math.min(most, rows, width)
  const [up, down] = [new Float32Array(rows * rank), new Float32Array(rank * width)]
  return { rank, up, down, squares: 0, energy: 1 }
}

function mapValues<Value, Result>(
  map: ReadonlyMap<string, Value>,
  make: (value: Value) => Result,
): Map<string, Result> {
  return new Map([...map].map(([name, value]) => [name, make(value)]))
}

/** Products (i, j), i <= j, of vectors at right angles. */
function identity(count: number): number[] {
  return Array.from({ length: count }, (_, i) =>
    Array.from({ length: count - i }, (_, j) => (j === 0 ? 1 : 0)),
  ).flat()
}

// Rows in memory at a time.
const ROWS = 1024

/** The mean of the first rows of [V, H], summed in F64 from the first on. */
async function meanRow(
  tensor: Tensor,
  rows: number,
  sources: ReadonlyMap<SourceId, Source>,
  signal: AbortSignal | undefined,
): Promise<Float32Array> {
  const width = tensor.shape[1]!
  const sums = new Float64Array(width)
  for (let from = 0; from < rows; from += ROWS) {
    signal?.throwIfAborted()
    const range = { begin: from * width, end: Math.min(rows, from + ROWS) * width }
    const values = new Float32Array((await evaluate({ ...tensor, dtype: 'F32' }, sources, range)).buffer)
    for (let i = 0; i < values.length; i++) sums[i % width]! += values[i]!
  }
  return Float32Array.from(sums, (sum) => sum / rows)
}
