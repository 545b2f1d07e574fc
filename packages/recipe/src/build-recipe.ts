import {
  allowedTensors,
  type Checkpoint,
  type JsonValue,
  ModelError,
  type Problem,
  type Skipped,
  throwIfAny,
  withoutAllowed,
} from '@polygraft/tensor'
import { adapted } from './_adapted.js'
import type { MergeEnvironment } from './_merge-environment.js'
import { placedAt } from './_placed.js'
import type { ModelLocation, ModelReference } from './_references.js'
import { type BuiltMerge, buildMerge } from './build-merge.js'
import { buildMixture } from './build-mixture.js'
import { buildPipeline } from './build-pipeline.js'
import type { Measuring } from './measuring.js'
import type { Recipe } from './parse-recipe.js'
import type { ReadPrompts } from './prompts.js'

/** What a recipe is built with. */
export interface RecipeEnvironment {
  /** Opens a checkpoint that the recipe names. */
  open(location: ModelLocation): Promise<Checkpoint>
  readonly measuring: Measuring
  /** Needed by mergekit-moe's gates that are made of prompts, which are refused without it. */
  readonly prompts?: ReadPrompts
  /** Go on although families and configs differ. Default false. */
  readonly force?: boolean
}

export interface BuiltRecipe {
  /** Symbolic; what had to be measured is in it as numbers. */
  readonly checkpoint: Checkpoint
  readonly warnings: readonly Problem[]
}

/**
 * Builds the checkpoint that a recipe describes. Opens its models, measures what its methods must see, writes nothing.
 * @throws ModelError with everything of a kind that stands in the way, placed in the recipe.
 */
export async function buildRecipe(recipe: Recipe, environment: RecipeEnvironment): Promise<BuiltRecipe> {
  const { models, dropped } = await openModels(recipe, environment)
  const { force = false, measuring, prompts } = environment
  const given = { models, measuring, force, yaml: recipe.yaml, ...(prompts ? { prompts } : {}) }
  const built = await buildDialect(recipe, given)
  return {
    warnings: [...recipe.warnings, ...built.warnings],
    checkpoint: withRecipe(built.checkpoint, recipe, dropped),
  }
}

function buildDialect(recipe: Recipe, environment: MergeEnvironment): Promise<BuiltMerge> {
  switch (recipe.dialect) {
    case 'mergekit':
      return buildMerge(recipe.plan, environment)
    case 'mergekit-moe':
      return buildMixture(recipe.plan, environment)
    case 'polygraft':
      return buildPipeline(recipe.steps, environment)
  }
}

interface Opened {
  readonly models: ReadonlyMap<string, Checkpoint>
  /** Tensors that the recipe allows to be dropped, of all models. */
  readonly dropped: readonly Skipped[]
}

/** All models that a recipe names, without the tensors that it allows to be dropped. */
async function openModels(recipe: Recipe, environment: RecipeEnvironment): Promise<Opened> {
  const problems: Problem[] = []
  const models = new Map<string, Checkpoint>()
  const dropped: Skipped[] = []
  for (const [name, reference] of recipe.models) {
    try {
      const model = await openModel(reference, environment)
      dropped.push(...allowedTensors(model, recipe.allow, name))
      models.set(name, withoutAllowed(model, recipe.allow))
    } catch (error) {
      if (!(error instanceof ModelError)) throw error
      const place = recipe.yaml.place(recipe.places.get(name) ?? [])
      problems.push(...error.problems.map((problem) => placedAt(problem, place)))
    }
  }
  throwIfAny(problems)
  return { models, dropped }
}

/** A model, with its adapter applied where the recipe names one. */
async function openModel(
  { model, lora }: ModelReference,
  { open, measuring }: RecipeEnvironment,
): Promise<Checkpoint> {
  const target = await open(model)
  if (!lora) return target
  return (await adapted(target, await open(lora), 1, measuring)).checkpoint
}

/** With the recipe itself among the steps that made it: behind a merge, and before the steps of a pipeline, whose last one says what it is. */
function withRecipe(
  checkpoint: Checkpoint,
  { dialect, yaml }: Recipe,
  dropped: readonly Skipped[],
): Checkpoint {
  const step = { op: 'recipe', dialect, file: yaml.file, recipe: yaml.data as JsonValue }
  const { provenance } = checkpoint
  const recipe = dialect === 'polygraft' ? [step, ...provenance.recipe] : [...provenance.recipe, step]
  return {
    ...checkpoint,
    provenance: { ...provenance, recipe, skipped: [...provenance.skipped, ...dropped] },
  }
}
