import { byteSize, numel, type Source, type SourceId, type Tensor, throwIfAny } from '@polygraft/tensor'
import { drive } from './_drive.js'
import type { Kernels } from './_kernel-pool.js'
import { createEvaluator } from './evaluate.js'
import { tensorProblems } from './validate.js'

const TILE_ELEMENTS = 64 * 1024

/** Elements [begin, end) of a tensor; all of them where left out. */
export interface Range {
  readonly begin?: number
  readonly end?: number
  readonly kernels?: Kernels
}

/**
 * The stored bytes of (a range of) one tensor, held in memory: for tests, plots and small tensors.
 * @throws ModelError when the tensor cannot be evaluated.
 */
export async function evaluate(
  tensor: Tensor,
  sources: ReadonlyMap<SourceId, Source>,
  { begin = 0, end = numel(tensor.shape), kernels = 'simd' }: Range = {},
): Promise<Uint8Array> {
  throwIfAny(tensorProblems('(unnamed)', tensor, sources))
  const out = new Uint8Array(byteSize(tensor.dtype, end - begin))
  const evaluator = createEvaluator(sources, Math.min(TILE_ELEMENTS, Math.max(1, end - begin)), kernels)
  for (let at = begin; at < end; at += TILE_ELEMENTS) {
    const count = Math.min(TILE_ELEMENTS, end - at)
    const bytes = out.subarray(byteSize(tensor.dtype, at - begin), byteSize(tensor.dtype, at - begin + count))
    await drive(evaluator.fill(tensor.expr, tensor.dtype, at, count, bytes))
  }
  return out
}
