import type { PairMoments } from '@polygraft/kernels'
import type { Source, SourceId, Tensor } from '@polygraft/tensor'
import type { Kernels } from './_kernel-pool.js'
import { measureMoments } from './measure.js'

/** Measures pairs of tensors over fixed sources, one at a time. */
export interface PairMeter {
  /** As `measureMoments`, for one pair. */
  measure(name: string, a: Tensor, b: Tensor, signal?: AbortSignal): Promise<PairMoments>
}

/** A meter over `sources`; for many pairs `measureMoments` is faster. */
export function createPairMeter(
  sources: ReadonlyMap<SourceId, Source>,
  kernels: Kernels = 'simd',
): PairMeter {
  return {
    async measure(name, a, b, signal) {
      const options = { kernels, ...(signal ? { signal } : {}) }
      return (await measureMoments(new Map([[name, [a, b]]]), sources, options)).get(name)!
    },
  }
}
