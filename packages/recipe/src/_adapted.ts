import { adapterProblems, adapterWarnings, applyAdapter, doraTargets, readAdapter } from '@polygraft/delta'
import { type Checkpoint, mergeSources, type Problem, pipe, throwIfAny } from '@polygraft/tensor'
import type { Measuring } from './measuring.js'

/** `target` with a LoRA adapter merged into it, what DoRA divides by measured. */
export async function adapted(
  target: Checkpoint,
  opened: Checkpoint,
  scale: number,
  { rowNorms }: Measuring,
): Promise<{ checkpoint: Checkpoint; warnings: readonly Problem[] }> {
  const options = { adapter: await readAdapter(opened), scale }
  throwIfAny(adapterProblems(target, options))
  const norms = await rowNorms(doraTargets(target, options), mergeSources(target, opened))
  return {
    checkpoint: pipe(target, applyAdapter({ ...options, norms })),
    warnings: adapterWarnings(target, options),
  }
}
