import { createMoments, decode, type PairMoments, pairMoments } from '@polygraft/kernels'
import {
  byteSize,
  type FloatDType,
  isFloat,
  numel,
  type Source,
  type SourceId,
  type Tensor,
  throwIfAny,
} from '@polygraft/tensor'
import { drive } from './_drive.js'
import type { Kernels } from './_kernel-pool.js'
import { createEvaluator } from './evaluate.js'
import { tensorProblems } from './validate.js'

const TILE_ELEMENTS = 64 * 1024

/** Measures pairs of tensors over fixed sources; keeps its buffers between calls. */
export interface PairMeter {
  /**
   * Moments of a and b, element by element in index order, accumulated in F64 on values of F32 (of F64 where either
   * tensor is F64), so the result does not depend on tiles.
   * @throws ModelError 'shape-mismatch' when the element counts differ; 'not-a-float' for integers and quantised types.
   */
  measure(name: string, a: Tensor, b: Tensor, signal?: AbortSignal): Promise<PairMoments>
}

/** A meter over `sources`. Memory: a few tiles of 64 Ki elements. */
export function createPairMeter(
  sources: ReadonlyMap<SourceId, Source>,
  kernels: Kernels = 'simd',
): PairMeter {
  const evaluator = createEvaluator(sources, TILE_ELEMENTS, kernels)
  const raw = new Uint8Array(TILE_ELEMENTS * 8)

  async function values(tensor: Tensor, begin: number, count: number, wide: 'F32' | 'F64') {
    const dtype = tensor.dtype as FloatDType
    const bytes = raw.subarray(0, byteSize(dtype, count))
    await drive(evaluator.fill(tensor.expr, dtype, begin, count, bytes))
    const out = wide === 'F64' ? new Float64Array(count) : new Float32Array(count)
    decode(dtype, bytes, out)
    return out
  }

  return {
    async measure(name, a, b, signal) {
      throwIfAny([
        ...pairProblems(name, a, b),
        ...tensorProblems(name, a, sources),
        ...tensorProblems(name, b, sources),
      ])
      const wide = a.dtype === 'F64' || b.dtype === 'F64' ? 'F64' : 'F32'
      const moments = createMoments()
      const total = numel(a.shape)
      for (let begin = 0; begin < total; begin += TILE_ELEMENTS) {
        signal?.throwIfAborted()
        const count = Math.min(TILE_ELEMENTS, total - begin)
        pairMoments(await values(a, begin, count, wide), await values(b, begin, count, wide), moments)
      }
      return moments
    },
  }
}

function pairProblems(name: string, a: Tensor, b: Tensor) {
  const problems = []
  if (numel(a.shape) !== numel(b.shape))
    problems.push({
      code: 'shape-mismatch',
      message: 'The two tensors differ in shape',
      tensor: name,
      expected: `[${a.shape}]`,
      received: `[${b.shape}]`,
    })
  for (const { dtype } of [a, b])
    if (!isFloat(dtype))
      problems.push({
        code: 'not-a-float',
        message: 'Only float tensors are measured',
        tensor: name,
        expected: 'F64, F32, F16 or BF16',
        received: dtype,
      })
  return problems
}
