import { z } from 'zod'
import { allowSchema, dtype } from './_mergekit-schema.js'
import { referenceSchema } from './_references.js'

const expert = z.strictObject({
  source_model: referenceSchema,
  positive_prompts: z.array(z.string()).min(1).optional(),
  negative_prompts: z.array(z.string()).optional(),
  noise_scale: z.number().optional(),
  residual_scale: z.number().optional(),
})

/** The form of mergekit-moe's configs; what goes together with what is checked later. */
export const mixtureSchema = z.strictObject({
  base_model: referenceSchema,
  experts: z.array(expert).min(1),
  gate_mode: z
    .enum(['random', 'uniform_random', 'cheap_embed', 'hidden', 'hidden_avg', 'hidden_last'])
    .optional(),
  dtype: dtype.optional(),
  experts_per_token: z.int().min(1).optional(),
  shared_experts: z.array(expert).optional(),
  architecture: z.string().min(1).optional(),
  seed: z.int().min(0).optional().describe('Of the routers: our addition. Default 0.'),
  allow: z.array(allowSchema).optional(),
})

export type MixtureDocument = z.infer<typeof mixtureSchema>
