import { countParameters } from '@polygraft/architectures'
import { familyOrNone, readVocabularies } from '@polygraft/delta'
import { planCheckpoint } from '@polygraft/engine'
import { type GraftOptions, graft, graftProblems, graftWarnings } from '@polygraft/graft'
import { type Checkpoint, ModelError, type Problem } from '@polygraft/tensor'
import { type UpcycleOptions, upcycle, upcycleProblems, upcycleWarnings } from '@polygraft/upcycle'
import type { Outlook, Recipe } from './api.js'
import { commandsOf } from './commands.js'
import { recipeYaml } from './recipe-yaml.js'

/** A recipe put together: `checkpoint` is there when nothing speaks against it. */
interface Built {
  readonly checkpoint?: Checkpoint
  readonly problems: readonly Problem[]
  readonly warnings: readonly Problem[]
}

/** Puts a recipe together: no weights are read. @param find A checkpoint by its key. */
export async function build(recipe: Recipe, find: (key: string) => Checkpoint): Promise<Built> {
  try {
    const base = find(recipe.base)
    const start = recipe.cpt === undefined ? upcycled(recipe, base) : onto(find(recipe.cpt))
    if (!start.checkpoint || recipe.post === undefined) return start
    const cpt = start.checkpoint
    const post = find(recipe.post)
    const options: GraftOptions = {
      base,
      post,
      lambda: recipe.lambda,
      foldRouter: false,
      force: false,
      ...lambdas(recipe),
      vocabularies: await readVocabularies({ base, post, cpt }),
    }
    const problems = graftProblems(cpt, options)
    const warnings = [...start.warnings, ...graftWarnings(cpt, options)]
    return problems.length > 0
      ? { problems, warnings }
      : { checkpoint: graft(options)(cpt), problems, warnings }
  } catch (error) {
    if (!(error instanceof ModelError)) throw error
    return { problems: error.problems, warnings: [] }
  }
}

/** What writing a recipe takes, and what speaks against it. */
export async function outlookOf(recipe: Recipe, find: (key: string) => Checkpoint): Promise<Outlook> {
  const locate = (key: string) => [...find(key).sources.values()][0]?.location ?? key
  const commands = commandsOf(recipe, locate)
  const yaml = recipeYaml(recipe, locate)
  const { checkpoint, problems, warnings } = await build(recipe, find)
  if (!checkpoint) return { problems, warnings, commands, yaml }
  try {
    const { parameters, bytesRead, bytesWritten, peakBytes, shards } = planCheckpoint(checkpoint)
    const family = familyOrNone(checkpoint)
    const active = family?.moe ? countParameters(family, checkpoint.config).active : undefined
    const figures = {
      parameters,
      ...(active === undefined ? {} : { active }),
      flopPerToken: 2 * (active ?? parameters),
      bytesRead,
      bytesWritten,
      peakBytes,
      shardCount: shards.length,
      experts: checkpoint.provenance.experts ?? [],
    }
    return { figures, problems, warnings, commands, yaml }
  } catch (error) {
    if (!(error instanceof ModelError)) throw error
    return { problems: error.problems, warnings, commands, yaml }
  }
}

function onto(checkpoint: Checkpoint): Built {
  return { checkpoint, problems: [], warnings: [] }
}

function upcycled({ languages, seed, target }: Recipe, base: Checkpoint): Built {
  const options: UpcycleOptions = { experts: 1 + languages.length, languages, seed, target }
  const problems = upcycleProblems(base, options)
  const warnings = upcycleWarnings(options)
  if (problems.length > 0) return { problems, warnings }
  return { checkpoint: upcycle(options)(base), problems, warnings }
}

function lambdas({ expertLambda, layerLambda }: Recipe): Pick<GraftOptions, 'expertLambda' | 'layerLambda'> {
  const [experts, layers] = [expertLambda, layerLambda].map(
    (factors) => new Map(Object.entries(factors).map(([index, by]) => [Number(index), by] as const)),
  )
  return {
    ...(experts!.size > 0 ? { expertLambda: experts! } : {}),
    ...(layers!.size > 0 ? { layerLambda: layers! } : {}),
  }
}
