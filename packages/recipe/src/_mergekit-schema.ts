import { z } from 'zod'
import { referenceSchema } from './_references.js'
import { METHODS } from './methods.js'
import { settingSchema } from './setting.js'

export const settings = z.record(z.string(), settingSchema)

export const inputModel = z.strictObject({ model: referenceSchema, parameters: settings.optional() })

const inputSlice = z.strictObject({
  model: referenceSchema,
  layer_range: z.tuple([z.int().min(0), z.int().min(1)], {
    error: 'two whole numbers: [first, one past the last]',
  }),
  parameters: settings.optional(),
})

export const outputSlice = z.strictObject({
  sources: z.array(inputSlice).min(1),
  base_model: referenceSchema.optional(),
  residual_weight: z.unknown().optional(),
  parameters: settings.optional(),
})

const outputModule = z.strictObject({
  slices: z.array(outputSlice).min(1).optional(),
  models: z.array(inputModel).min(1).optional(),
  parameters: settings.optional(),
})

const tokenSource = z.union(
  [
    z.strictObject({ kind: z.literal('zero') }),
    z.strictObject({
      kind: z.literal('model_token'),
      model: referenceSchema,
      token_id: z.int().min(0).optional(),
      token: z.string().optional(),
    }),
    referenceSchema,
  ],
  { error: 'a model, {kind: zero}, or {kind: model_token, model, token or token_id}' },
)

export const tokenizer = z.strictObject({
  source: z.union([z.enum(['union', 'base']), referenceSchema]).optional(),
  tokens: z
    .record(z.string(), z.strictObject({ source: tokenSource.optional(), force: z.boolean().optional() }))
    .optional(),
  pad_to_multiple_of: z.int().min(1).optional(),
})

/** Names of dtypes, as mergekit and transformers write them. */
export const DTYPES = { float64: 'F64', float32: 'F32', float16: 'F16', bfloat16: 'BF16' } as const

export const dtype = z.preprocess(
  (value) => (typeof value === 'string' ? value.replace(/^torch\./, '') : value),
  z.enum(Object.keys(DTYPES) as (keyof typeof DTYPES)[]),
)

/** A deliberately dropped tensor of the inputs: our addition to mergekit's forms. */
export const allowSchema = z.strictObject({
  tensors: z.string().min(1).describe('A part of their names; `*` in it stands for anything.'),
  reason: z.string().min(1).describe('Why they are dropped; goes into the manifest.'),
})

/** The form of mergekit's recipes; what goes together with what is checked later. */
export const mergekitSchema = z.strictObject({
  merge_method: z.enum(Object.keys(METHODS)),
  models: z.array(inputModel).min(1).optional(),
  slices: z.array(outputSlice).min(1).optional(),
  modules: z.record(z.string(), outputModule).optional(),
  base_model: referenceSchema.optional(),
  parameters: settings.optional(),
  dtype: dtype.optional(),
  out_dtype: dtype.optional(),
  tokenizer_source: z.union([z.enum(['union', 'base']), referenceSchema]).optional(),
  tokenizer: tokenizer.optional(),
  chat_template: z.string().min(1).optional(),
  name: z.string().optional(),
  allow: z.array(allowSchema).optional(),
})

export type MergekitRecipe = z.infer<typeof mergekitSchema>
