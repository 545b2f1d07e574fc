import type { Statistics } from '@polygraft/kernels'
import type { Source, SourceId, StateDict } from '@polygraft/tensor'
import type { Threshold, TopK } from './_selection.js'
import { type Gram, measureGrams, measureStatistics } from './measure.js'
import { type DivergenceTarget, measureDivergences } from './measure-divergences.js'
import type { GramTarget } from './measure-row-grams.js'
import type { MeasureOptions } from './measure-run.js'
import { measureThresholds } from './measure-thresholds.js'

/** What is to be measured, by kind and name. */
export interface MeasureTargets {
  readonly thresholds: ReadonlyMap<string, TopK>
  readonly statistics: StateDict
  readonly grams: ReadonlyMap<string, GramTarget>
  readonly divergences: ReadonlyMap<string, DivergenceTarget>
}

/** What came out, under the same names. */
export interface Measured {
  readonly thresholds: ReadonlyMap<string, Threshold>
  readonly statistics: ReadonlyMap<string, Statistics>
  readonly grams: ReadonlyMap<string, Gram>
  readonly divergences: ReadonlyMap<string, Float64Array>
}

/**
 * `measureThresholds`, `measureStatistics`, `measureGrams` and `measureDivergences`, one after the other: all that a merge of `@polygraft/delta` asks for.
 * @throws ModelError as they do.
 */
export async function measureTargets(
  targets: MeasureTargets,
  sources: ReadonlyMap<SourceId, Source>,
  options: MeasureOptions = {},
): Promise<Measured> {
  return {
    thresholds: await measureThresholds(targets.thresholds, sources, options),
    statistics: await measureStatistics(targets.statistics, sources, options),
    grams: await measureGrams(targets.grams, sources, options),
    divergences: await measureDivergences(targets.divergences, sources, options),
  }
}
