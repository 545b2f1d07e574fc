import { roleOf } from '@polygraft/architectures'
import { type DiffRow, diffReport, familyOrNone, type Pair, pairTensors } from '@polygraft/delta'
import { measureMoments } from '@polygraft/engine'
import type { DeltaNorm } from '@polygraft/evaluate'
import { byteSize, type Checkpoint, mergeSources, numel } from '@polygraft/tensor'
import type { Terminal } from './terminal.js'
import { threadsFor } from './write.js'

/** Measures pairs of tensors, showing how far it is. */
export async function measureDiff(
  terminal: Terminal,
  base: Checkpoint,
  post: Checkpoint,
  pairs: readonly Pair[],
  threads: number | undefined,
): Promise<DiffRow[]> {
  const family = familyOrNone(base)
  const tensors = new Map(pairs.map((pair) => [pair.name, [pair.base, pair.post] as const]))
  const bytes = pairs
    .flatMap((pair) => [pair.base, pair.post])
    .reduce((sum, { dtype, shape }) => sum + byteSize(dtype, numel(shape)), 0)
  const progress = terminal.progress('diff')
  const measured = await measureMoments(tensors, mergeSources(base, post), {
    threads: threads ?? threadsFor(bytes),
    onProgress: ({ bytesDone, bytesTotal }) => progress.update(bytesDone, bytesTotal),
  })
  progress.done()
  return [...measured].map(([name, moments]) => {
    const { group, layer } = family ? roleOf(family, name) : { group: 'other' }
    return { name, group, ...(layer === undefined ? {} : { layer }), moments }
  })
}

/** How far the tensors of each group and layer moved from `base` to `post`. */
export async function deltaNorms(
  terminal: Terminal,
  base: Checkpoint,
  post: Checkpoint,
): Promise<DeltaNorm[]> {
  const { pairs } = await pairTensors(base, post)
  const rows = await measureDiff(terminal, base, post, pairs, undefined)
  const layers = [...new Set(rows.map(({ layer }) => layer))].filter((layer) => layer !== undefined)
  return layers.flatMap((layer) => {
    const { groups } = diffReport(rows.filter((row) => row.layer === layer))
    return Object.values(groups).map(({ name, relativeNorm }) => ({ group: name, layer, relativeNorm }))
  })
}
