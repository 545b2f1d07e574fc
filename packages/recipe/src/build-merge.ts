import { type Checkpoint, mergeSources, type Problem, throwIfAny } from '@polygraft/tensor'
import type { MergeEnvironment } from './_merge-environment.js'
import { mergeParts, partsOf } from './_merge-parts.js'
import { familyProblems, inPlan, rangeProblems } from './_merge-problems.js'
import { skippedOf, stepOf } from './_merge-provenance.js'
import { outputConfig, withArithmetic, withDTypes } from './_merged-config.js'
import { mergedFiles } from './_merged-files.js'
import { baseIndex, modelNames, targetName } from './_model-names.js'
import { tokenizerSetting } from './_tokenizer-setting.js'
import { inOneForm } from './_views.js'
import { alignModels, type NamedModel } from './align-models.js'
import type { MergePlan } from './merge-plan.js'

export interface BuiltMerge {
  readonly checkpoint: Checkpoint
  readonly warnings: readonly Problem[]
}

/**
 * Builds the checkpoint that a plan describes: models in one form, their vocabularies aligned by token, and the method on
 * each part of the output. Symbolic but for what the method has to measure.
 * @throws ModelError with every problem of a kind; those of the plan have their place in the recipe.
 */
export async function buildMerge(plan: MergePlan, environment: MergeEnvironment): Promise<BuiltMerge> {
  const names = modelNames(plan)
  const opened = names.map((name) => environment.models.get(name)!)
  throwIfAny([
    ...rangeProblems(plan, environment),
    ...(environment.force ? [] : familyProblems(plan, names, environment)),
  ])
  const { models, skipped } = inOneForm(opened)
  const named = names.map((label, i): NamedModel => ({ label, checkpoint: models[i]! }))
  const aligned = await alignModels(
    named,
    baseIndex(plan, names),
    tokenizerSetting(plan, names, environment),
    environment.measuring.meanRow,
  )
  const ready = new Map(names.map((name, i) => [name, withArithmetic(aligned.models[i]!, plan)]))
  const parts = partsOf(plan, ready)
  const merged = await inPlan(plan, environment, () => mergeParts(plan, parts, ready, environment))
  const target = ready.get(targetName(plan))!
  const original = environment.models.get(targetName(plan))!
  const files = await mergedFiles(plan, target, opened, aligned.vocabulary)
  const config = outputConfig(plan, target, parts, ready, aligned.vocabulary?.donor)
  return {
    warnings: [...aligned.warnings, ...files.warnings],
    checkpoint: {
      ...target,
      config,
      tensors: withDTypes(merged, original, plan),
      files: files.files,
      sources: mergeSources(...ready.values()),
      provenance: {
        ...target.provenance,
        recipe: [...target.provenance.recipe, stepOf(plan, environment.models)],
        skipped: [...target.provenance.skipped, ...skippedOf(plan, names, skipped, parts, ready)],
      },
    },
  }
}
