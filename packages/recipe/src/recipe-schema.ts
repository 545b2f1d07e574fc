import type { JsonObject } from '@polygraft/tensor'
import { z } from 'zod'
import { pipelineSchema } from './_pipeline-schema.js'

/** JSON Schema (draft 2020-12) of our own recipes, for editors; published as `schema/recipe.schema.json`. */
export function recipeSchema(): JsonObject {
  const schema = z.toJSONSchema(pipelineSchema, { io: 'input' }) as JsonObject
  const { $schema, ...rest } = schema
  return {
    $schema: $schema!,
    title: 'polygraft recipe',
    description: 'Steps over model checkpoints, each with a name.',
    ...rest,
  }
}
