import { type Allowed, ModelError, type Problem, throwIfAny } from '@polygraft/tensor'
import type { z } from 'zod'
import { describe, meant, schemaProblems } from './_issues.js'
import { mergekitSchema } from './_mergekit-schema.js'
import { mixtureSchema } from './_mixture-schema.js'
import { pipelineSchema } from './_pipeline-schema.js'
import { planFindings } from './_plan-problems.js'
import { readerOf } from './_reader.js'
import type { ModelReference } from './_references.js'
import { type Path, parseYaml, type YamlText } from './_yaml.js'
import type { MergePlan } from './merge-plan.js'
import { planMergekit } from './mergekit.js'
import { type MixturePlan, planMixture } from './mixture.js'
import { type PlannedStep, planPipeline } from './pipeline.js'

/** What recipes of all dialects have in common. */
interface AnyRecipe {
  /** The document as it was written, as plain data; goes into the manifest. */
  readonly yaml: YamlText
  /** The checkpoints that it refers to, by the name that it has for them. */
  readonly models: ReadonlyMap<string, ModelReference>
  /** Where each of them was first written. */
  readonly places: ReadonlyMap<string, Path>
  /** Input tensors that are dropped deliberately, and why. */
  readonly allow: readonly Allowed[]
  /** What has no effect, or may surprise. */
  readonly warnings: readonly Problem[]
}

/** A recipe of mergekit. */
export interface MergeRecipe extends AnyRecipe {
  readonly dialect: 'mergekit'
  readonly plan: MergePlan
}

/** A recipe of ours: steps with named results. */
export interface PipelineRecipe extends AnyRecipe {
  readonly dialect: 'polygraft'
  /** In the order in which they run; the last gives the output. */
  readonly steps: readonly PlannedStep[]
}

/** A config of mergekit-moe. */
export interface MixtureRecipe extends AnyRecipe {
  readonly dialect: 'mergekit-moe'
  readonly plan: MixturePlan
}

/** A recipe that was read and checked as far as that goes without its models. */
export type Recipe = MergeRecipe | MixtureRecipe | PipelineRecipe

/** What tells the dialects apart. */
const MARKS = { mergekit: ['merge_method'], 'mergekit-moe': ['experts'], polygraft: ['steps'] } as const

/**
 * Reads a recipe: our own (`steps`), mergekit's (`merge_method`) or mergekit-moe's (`experts`).
 * @param file Named in problems.
 * @throws ModelError with everything that is wrong, each with line and column, what was expected, and the nearest valid word.
 */
export function parseRecipe(text: string, file: string): Recipe {
  const yaml = parseYaml(text, file)
  return PARSERS[dialectOf(yaml)](yaml)
}

const PARSERS = { mergekit: parseMergekit, 'mergekit-moe': parseMixture, polygraft: parsePipeline } as const

function dialectOf({ data, place }: YamlText): keyof typeof MARKS {
  const choices = Object.values(MARKS).flat()
  const expected =
    'steps (a recipe of ours), merge_method (one of mergekit), or experts (one of mergekit-moe)'
  if (typeof data !== 'object' || data === null || Array.isArray(data))
    throw new ModelError({
      code: 'bad-recipe',
      message: 'The recipe is no map of keys',
      ...place([]),
      expected,
      received: describe(data),
    })
  const keys = Object.keys(data)
  const found = Object.entries(MARKS).find(([, marks]) => marks.some((mark) => keys.includes(mark)))
  if (found) return found[0] as keyof typeof MARKS
  const near = keys.map((key) => ({ key, ...meant(key, choices) })).find(({ next }) => next)
  throw new ModelError({
    code: 'bad-recipe',
    message: 'Nothing says what kind of recipe this is',
    ...place(near ? [near.key] : [], 'key'),
    expected,
    received: keys.join(', ') || 'no keys',
    ...(near ? { next: near.next! } : {}),
  })
}

function parseMergekit(written: YamlText): MergeRecipe {
  const yaml = { ...written, data: withoutNulls(written.data) }
  const recipe = checked(mergekitSchema, yaml)
  const reader = readerOf(yaml)
  const plan = planMergekit(recipe, reader)
  const { models, places } = reader
  throwIfAny(reader.problems)
  const findings = planFindings(plan, yaml)
  throwIfAny(findings.problems)
  const { warnings } = findings
  return { dialect: 'mergekit', yaml, plan, models, places, allow: recipe.allow ?? [], warnings }
}

function parseMixture(written: YamlText): MixtureRecipe {
  const yaml = { ...written, data: withoutNulls(written.data) }
  const recipe = checked(mixtureSchema, yaml)
  const reader = readerOf(yaml)
  const plan = planMixture(recipe, reader)
  throwIfAny(reader.problems)
  const { models, places } = reader
  return { dialect: 'mergekit-moe', yaml, plan, models, places, allow: recipe.allow ?? [], warnings: [] }
}

function parsePipeline(yaml: YamlText): PipelineRecipe {
  const recipe = checked(pipelineSchema, yaml)
  const { steps, reader, problems, warnings } = planPipeline(recipe, yaml)
  throwIfAny(problems)
  const { models, places } = reader
  return { dialect: 'polygraft', yaml, steps, models, places, allow: recipe.allow ?? [], warnings }
}

/** @throws ModelError with all that the schema finds. */
function checked<Schema extends z.ZodType>(schema: Schema, yaml: YamlText): z.infer<Schema> {
  const result = schema.safeParse(yaml.data)
  if (!result.success) throw new ModelError(schemaProblems(yaml, schema, result.error.issues))
  return result.data
}

/** To mergekit a key without a value is a key that is not there. */
function withoutNulls(data: unknown): unknown {
  if (Array.isArray(data)) return data.map(withoutNulls)
  if (typeof data !== 'object' || data === null) return data
  const entries = Object.entries(data).filter(([, value]) => value !== null)
  return Object.fromEntries(entries.map(([key, value]) => [key, withoutNulls(value)]))
}
