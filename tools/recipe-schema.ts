// Writes the JSON Schema of recipes into @polygraft/recipe: npx tsx tools/recipe-schema.ts && npx biome check --write packages/recipe
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { recipeSchema } from '../packages/recipe/src/index.js'

const file = join(
  dirname(dirname(fileURLToPath(import.meta.url))),
  'packages/recipe/schema/recipe.schema.json',
)
mkdirSync(dirname(file), { recursive: true })
writeFileSync(file, `${JSON.stringify(recipeSchema(), undefined, 2)}\n`)
