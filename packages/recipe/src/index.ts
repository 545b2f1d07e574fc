export type { ModelLocation, ModelReference } from './_references.js'
export type {
  AlignedModels,
  MeasureMeanRow,
  NamedModel,
  TokenizerSetting,
  TokenSetting,
} from './align-models.js'
export { alignModels } from './align-models.js'
export type { BuiltRecipe, RecipeEnvironment } from './build-recipe.js'
export { buildRecipe } from './build-recipe.js'
export type { Measuring } from './measuring.js'
export { dryMeasuring, engineMeasuring } from './measuring.js'
export type { MergeRecipe, MixtureRecipe, PipelineRecipe, Recipe } from './parse-recipe.js'
export { parseRecipe } from './parse-recipe.js'
export type { PromptState, ReadPrompts } from './prompts.js'
export { recipeSchema } from './recipe-schema.js'
