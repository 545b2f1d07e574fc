import { storedExpr } from '@polygraft/delta'
import type { Checkpoint, Problem } from '@polygraft/tensor'
import { buildStep } from './_build-step.js'
import type { MergeEnvironment } from './_merge-environment.js'
import { placed } from './_placed.js'
import type { BuiltMerge } from './build-merge.js'
import type { PlannedStep } from './pipeline.js'

/**
 * Builds steps one after the other. Results between are never written, and yet are what they would be if they were: their
 * elements are rounded to the dtypes that the step gives them.
 * @throws ModelError with what stands in the way of a step, placed in the recipe.
 */
export async function buildPipeline(
  steps: readonly PlannedStep[],
  environment: MergeEnvironment,
): Promise<BuiltMerge> {
  const models = new Map(environment.models)
  const warnings: Problem[] = []
  let last: Checkpoint | undefined
  for (const step of steps) {
    const place = environment.yaml.place([...step.path, 'id'])
    const built = await placed(place, () => buildStep(step, { ...environment, models }))
    warnings.push(...built.warnings.map((warning) => ({ ...place, ...warning })))
    last = built.checkpoint
    models.set(step.id, asStored(last))
  }
  return { checkpoint: last!, warnings }
}

function asStored(checkpoint: Checkpoint): Checkpoint {
  const tensors = [...checkpoint.tensors].map(
    ([name, tensor]) => [name, { ...tensor, expr: storedExpr(tensor, checkpoint) }] as const,
  )
  return { ...checkpoint, tensors: new Map(tensors) }
}
