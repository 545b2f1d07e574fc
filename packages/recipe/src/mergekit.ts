import { DTYPES, type MergekitRecipe } from './_mergekit-schema.js'
import { readSlices, type WrittenInputs } from './_read-slices.js'
import { readTokenizer } from './_read-tokenizer.js'
import type { Reader } from './_reader.js'
import type { Path } from './_yaml.js'
import type { MergePlan, Settings } from './merge-plan.js'

/** The one part of a text model, as mergekit names it in `modules`. */
const MODULE = 'default'

/** Reads a checked mergekit document. Everything that it asks for and that is not done here is a problem that names it. */
export function planMergekit(recipe: MergekitRecipe, reader: Reader): MergePlan {
  const given = (['models', 'slices', 'modules'] as const).filter((key) => recipe[key] !== undefined)
  if (given.length !== 1)
    reader.report(
      'bad-recipe',
      'A recipe has exactly one of models, slices and modules',
      given.length > 0 ? [given[1]!] : [],
      { received: given.join(', ') || 'none of them' },
    )
  const { body, path, settings } = bodyOf(recipe, reader)
  const slices = readSlices(body, path, reader)
  const scopes = [...settings, { settings: recipe.parameters ?? {}, path: ['parameters'] }]
  const base = recipe.base_model === undefined ? undefined : reader.model(recipe.base_model, ['base_model'])
  const tokenizer = readTokenizer(recipe, [], reader)
  const dtype = recipe.out_dtype ?? recipe.dtype
  return {
    method: recipe.merge_method,
    slices,
    ...(base === undefined ? {} : { base }),
    parameters: scopes.map((scope) => scope.settings),
    parameterPaths: scopes.map((scope) => scope.path),
    ...(dtype ? { dtype: DTYPES[dtype] } : {}),
    ...(tokenizer ? { tokenizer } : {}),
    ...(recipe.chat_template ? { chatTemplate: recipe.chat_template } : {}),
    outside: 'start',
    conventions: 'mergekit',
    path: ['merge_method'],
  }
}

/** What is merged, where it stands, and parameters that are for it alone. */
interface Body {
  readonly body: WrittenInputs
  readonly path: Path
  readonly settings: readonly { readonly settings: Settings; readonly path: Path }[]
}

/** The recipe itself, or its one module. */
function bodyOf(recipe: MergekitRecipe, reader: Reader): Body {
  if (!recipe.modules) return { body: recipe, path: [], settings: [] }
  const names = Object.keys(recipe.modules)
  for (const name of names.filter((each) => each !== MODULE))
    reader.report(
      'not-supported',
      `Module ${name} is not supported: models here have one part`,
      ['modules', name],
      { expected: MODULE },
    )
  const body = recipe.modules[MODULE] ?? {}
  const path = ['modules', MODULE]
  if (names.includes(MODULE) && (body.models === undefined) === (body.slices === undefined))
    reader.report('bad-recipe', 'A module has exactly one of models and slices', path)
  const settings = body.parameters ? [{ settings: body.parameters, path: [...path, 'parameters'] }] : []
  return { body, path, settings }
}
