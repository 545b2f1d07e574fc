import { adapterProblems, applyAdapter, doraTargets, readAdapter } from '@polygraft/delta'
import {
  type Checkpoint,
  type JsonValue,
  ModelError,
  mergeSources,
  type Problem,
  pipe,
  type Skipped,
  throwIfAny,
} from '@polygraft/tensor'
import type { ModelLocation, ModelReference } from './_references.js'
import { buildMerge } from './build-merge.js'
import type { Measuring } from './measuring.js'
import type { Allowed, Recipe } from './parse-recipe.js'
import { matches } from './setting.js'

/** What a recipe is built with. */
export interface RecipeEnvironment {
  /** Opens a checkpoint that the recipe names. */
  open(location: ModelLocation): Promise<Checkpoint>
  readonly measuring: Measuring
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
  const { force = false, measuring } = environment
  const built = await buildMerge(recipe.plan, { models, measuring, force, yaml: recipe.yaml })
  return {
    warnings: [...recipe.warnings, ...built.warnings],
    checkpoint: withRecipe(built.checkpoint, recipe, dropped),
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
      const skipped = allowedOf(model, name, recipe.allow)
      dropped.push(...skipped)
      models.set(name, without(model, new Set(skipped.map(({ tensor }) => tensor))))
    } catch (error) {
      if (!(error instanceof ModelError)) throw error
      problems.push(...error.problems.map((problem) => askedFor(problem, recipe, name)))
    }
  }
  throwIfAny(problems)
  return { models, dropped }
}

/** A problem of a file, with the place of the recipe that asks for it. */
function askedFor(problem: Problem, { yaml, places }: Recipe, name: string): Problem {
  const place = yaml.place(places.get(name) ?? [])
  if (problem.file === undefined) return { ...problem, ...place }
  return {
    ...problem,
    message: `${problem.message}, asked for in ${place.file}:${place.line}:${place.column}`,
  }
}

/** A model, with its adapter applied where the recipe names one. */
async function openModel(
  { model, lora }: ModelReference,
  { open, measuring }: RecipeEnvironment,
): Promise<Checkpoint> {
  const target = await open(model)
  if (!lora) return target
  const options = { adapter: await readAdapter(await open(lora)) }
  throwIfAny(adapterProblems(target, options))
  const sources = mergeSources(target, options.adapter.checkpoint)
  const norms = await measuring.rowNorms(doraTargets(target, options), sources)
  return pipe(target, applyAdapter({ ...options, norms }))
}

function allowedOf({ tensors }: Checkpoint, name: string, allow: readonly Allowed[]): Skipped[] {
  return [...tensors.keys()].flatMap((tensor) => {
    const rule = allow.find((each) => matches(each.tensors, tensor))
    return rule ? [{ tensor, reason: `${rule.reason} (${name})` }] : []
  })
}

function without(model: Checkpoint, names: ReadonlySet<string>): Checkpoint {
  if (names.size === 0) return model
  return { ...model, tensors: new Map([...model.tensors].filter(([tensor]) => !names.has(tensor))) }
}

/** With the recipe itself as the last step of what made it. */
function withRecipe(
  checkpoint: Checkpoint,
  { dialect, yaml }: Recipe,
  dropped: readonly Skipped[],
): Checkpoint {
  const step = { op: 'recipe', dialect, file: yaml.file, recipe: yaml.data as JsonValue }
  const { provenance } = checkpoint
  const recipe = [...provenance.recipe, step]
  return {
    ...checkpoint,
    provenance: { ...provenance, recipe, skipped: [...provenance.skipped, ...dropped] },
  }
}
