import { roleOf } from '@polygraft/architectures'
import { diffReport, familyOrNone, pairTensors } from '@polygraft/delta'
import { measureMoments } from '@polygraft/engine'
import { type Checkpoint, mergeSources } from '@polygraft/tensor'
import type { Comparison, OnProgress } from './api.js'

/**
 * Measures post - base, as `polygraft diff` does.
 * @throws ModelError as `pairTensors` and `measureMoments`.
 */
export async function compare(
  base: Checkpoint,
  post: Checkpoint,
  names: Pick<Comparison, 'base' | 'post'>,
  onProgress: OnProgress,
  signal: AbortSignal,
): Promise<Comparison> {
  const { pairs, ...rest } = await pairTensors(base, post)
  const family = familyOrNone(base)
  const tensors = new Map(pairs.map((pair) => [pair.name, [pair.base, pair.post] as const]))
  const measured = await measureMoments(tensors, mergeSources(base, post), {
    signal,
    onProgress: ({ bytesDone, bytesTotal }) => onProgress(bytesDone, bytesTotal),
  })
  const rows = [...measured].map(([name, moments]) => {
    const { group, layer } = family ? roleOf(family, name) : { group: 'other' }
    return { name, group, ...(layer === undefined ? {} : { layer }), moments }
  })
  return { ...names, ...diffReport(rows), ...rest }
}
