import { FAMILIES, type TargetName } from '@polygraft/architectures'
import { ROUTER_INITS } from '@polygraft/routing'
import { z } from 'zod'
import { allowSchema, DTYPES, inputModel, outputSlice, settings, tokenizer } from './_mergekit-schema.js'
import { STEP_NAME } from './_step-name.js'
import { METHODS } from './methods.js'

const reference = z
  .union([z.string().min(1), z.strictObject({ path: z.string().min(1), revision: z.string().optional() })], {
    error: 'the id of a step, a path (./base), an address, org/name, or {path, revision}',
  })
  .describe(
    'The id of a step; or a path (./base), an address (https:, hf:), org/name of the Hub, each with @revision, +adapter.',
  )

/** How steps and their inputs are written. */
export type StepReference = z.infer<typeof reference>

const factors = z
  .record(z.string().regex(/^\d+$/, { error: 'a whole number' }), z.number())
  .describe('Factors by index, 1 where left out.')

const mixtures = FAMILIES.filter(({ moe }) => moe).map(({ modelType }) => modelType as TargetName)
const sharedExpert = z.enum(['placeholder', 'derived'])

/** What every step has. */
const step = {
  id: z
    .string()
    .regex(STEP_NAME, { error: 'a word of letters, digits, - and _' })
    .describe('What other steps call its result.'),
}

const expertInit = z.union(
  [
    z.strictObject({ kind: z.literal('copy') }),
    z.strictObject({ kind: z.literal('noise'), std: z.number() }),
    z.strictObject({ kind: z.literal('drop'), rate: z.number() }),
  ],
  { error: '{kind: copy}, {kind: noise, std}, or {kind: drop, rate}' },
)

const upcycle = z.strictObject({
  ...step,
  op: z.literal('upcycle'),
  model: reference,
  experts: z.int().optional(),
  topK: z.int().optional().describe('Experts per token. Default 2.'),
  granularity: z.int().optional().describe('Parts that each expert is cut into. Default 1.'),
  denseLayers: z.array(z.int()).optional().describe('Layers that keep their dense block.'),
  sharedExpert: sharedExpert.optional(),
  expertsFrom: z
    .record(z.string().regex(/^\d+$/, { error: 'the index of an expert' }), reference)
    .optional()
    .describe('Dense models that experts come from, by expert; the others come from `model`.'),
  others: z.enum(['base', 'mean']).optional().describe('Where everything but the experts comes from.'),
  target: z.enum(['auto', ...mixtures]).optional(),
  router: z.enum(ROUTER_INITS).optional(),
  seed: z.int().optional(),
  expertInit: expertInit.optional(),
  languages: z.array(z.string()).optional().describe('Labels of experts 1, 2, ...'),
  normTopkProb: z.boolean().optional(),
})

const expand = z.strictObject({
  ...step,
  op: z.literal('expand'),
  model: reference,
  blocks: z.int().describe('Layers to insert, which add nothing until they are trained.'),
})

const graft = z.strictObject({
  ...step,
  op: z.literal('graft'),
  model: reference.describe('What was trained on: the checkpoint that takes the delta.'),
  base: reference.optional(),
  post: reference.optional(),
  delta: reference.optional().describe('In place of base and post.'),
  lambda: z.number().optional(),
  expertLambda: factors.optional(),
  layerLambda: factors.optional(),
  foldRouter: z.boolean().optional(),
  sharedExpert: sharedExpert.optional(),
  upcycled: reference
    .optional()
    .describe('The checkpoint that `model` was trained from, where `model` lost its polygraft.json.'),
})

const delta = z.strictObject({
  ...step,
  op: z.literal('delta'),
  base: reference,
  post: reference,
  scale: z.number().optional().describe('A factor. Default 1.'),
})

const apply = z.strictObject({
  ...step,
  op: z.literal('apply'),
  model: reference,
  delta: reference,
  lambda: z.number().optional(),
})

const loraApply = z.strictObject({
  ...step,
  op: z.literal('loraApply'),
  model: reference,
  adapter: reference,
  scale: z.number().optional().describe("Multiplies the adapter's own alpha / rank. Default 1."),
})

const lowRank = {
  delta: reference,
  rank: z.int().min(1).describe('The rank, or with `energy` the most.'),
  energy: z
    .number()
    .gt(0)
    .max(1)
    .optional()
    .describe("The least rank that keeps this share of a matrix' squares."),
  targets: z.array(z.string().min(1)).min(1).optional().describe('Modules, such as q_proj.'),
}

const truncate = z.strictObject({ ...step, op: z.literal('truncate'), ...lowRank })

const loraExtract = z.strictObject({
  ...step,
  op: z.literal('loraExtract'),
  ...lowRank,
  dtype: z.enum(['F32', 'F16', 'BF16']).optional().describe('Of the factors.'),
  baseName: z.string().optional().describe('What the adapter says it is for.'),
})

const merge = z.strictObject({
  ...step,
  op: z.literal('merge'),
  merge_method: z.enum(Object.keys(METHODS)),
  models: z.array(inputModel).min(1).optional(),
  slices: z.array(outputSlice).min(1).optional(),
  base_model: reference.optional(),
  parameters: settings.optional(),
  dtype: z.enum(Object.keys(DTYPES) as (keyof typeof DTYPES)[]).optional(),
  tokenizer: tokenizer.optional(),
  chat_template: z.string().min(1).optional(),
  conventions: z
    .enum(['paper', 'mergekit'])
    .optional()
    .describe("Whose defaults and rules count: the method's paper's (the default), or mergekit's."),
})

const anyStep = z.discriminatedUnion('op', [
  upcycle,
  expand,
  graft,
  merge,
  delta,
  apply,
  truncate,
  loraApply,
  loraExtract,
])

/** The form of our own recipes: steps whose results have names. */
export const pipelineSchema = z.strictObject({
  name: z.string().optional(),
  steps: z.array(anyStep).min(1),
  output: z
    .string()
    .optional()
    .describe('The id of the step whose result is written. Default: the last one.'),
  allow: z.array(allowSchema).optional(),
})

export type PipelineRecipe = z.infer<typeof pipelineSchema>
export type WrittenStep = PipelineRecipe['steps'][number]
