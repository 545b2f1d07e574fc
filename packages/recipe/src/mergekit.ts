import type { Problem } from '@polygraft/tensor'
import { DTYPES, type MergekitRecipe } from './_mergekit-schema.js'
import { formatReference, type ModelReference, parseReference } from './_references.js'
import type { Path, YamlText } from './_yaml.js'
import type {
  MergeInput,
  MergePlan,
  MergeSlice,
  PlannedToken,
  PlannedTokenizer,
  Settings,
} from './merge-plan.js'

/** A mergekit recipe as a plan, with the models that it refers to. */
export interface MergekitPlan {
  readonly plan: MergePlan
  /** By the text that stands for them in the plan. */
  readonly models: ReadonlyMap<string, ModelReference>
  /** Where each was first written. */
  readonly places: ReadonlyMap<string, Path>
  readonly problems: readonly Problem[]
}

type Slices = NonNullable<MergekitRecipe['slices']>
type Models = NonNullable<MergekitRecipe['models']>
type Written = Parameters<typeof parseReference>[0]

/** The one part of a text model, as mergekit names it in `modules`. */
const MODULE = 'default'

/** Reads a checked mergekit document. Everything that it asks for and that is not done here is a problem that names it. */
export function planMergekit(recipe: MergekitRecipe, yaml: YamlText): MergekitPlan {
  const problems: Problem[] = []
  const models = new Map<string, ModelReference>()
  const places = new Map<string, Path>()
  const report = (code: string, message: string, path: Path, more: Partial<Problem> = {}) =>
    problems.push({ code, message, ...yaml.place(path, 'key'), ...more })
  const model = (written: Written, path: Path): string => {
    const reference = parseReference(written)
    if (!reference) {
      const expected = 'path, path@revision or model+lora'
      report('bad-value', 'This names no model', path, { expected, received: JSON.stringify(written) })
      return JSON.stringify(written)
    }
    if (typeof written === 'object' && 'override_architecture' in written && written.override_architecture)
      report('not-supported', 'override_architecture is not supported', [...path, 'override_architecture'])
    const key = formatReference(reference)
    models.set(key, reference)
    if (!places.has(key)) places.set(key, path)
    return key
  }
  const inputOf = (
    { model: written, parameters = {}, ...rest }: Models[number] | Slices[number]['sources'][number],
    path: Path,
  ): MergeInput => ({
    model: model(written, [...path, 'model']),
    parameters,
    path,
    ...('layer_range' in rest ? { layers: rest.layer_range } : {}),
  })
  const wholeSlice = (list: Models, path: Path): MergeSlice => ({
    inputs: list.map((each, i) => inputOf(each, [...path, i])),
    parameters: {},
    path,
  })
  const sliceOf = (slice: Slices[number], path: Path): MergeSlice => {
    if (slice.residual_weight !== undefined)
      report('not-supported', 'residual_weight has no meaning: mergekit reads it and does nothing', [
        ...path,
        'residual_weight',
      ])
    return {
      inputs: slice.sources.map((each, i) => inputOf(each, [...path, 'sources', i])),
      ...(slice.base_model === undefined ? {} : { base: model(slice.base_model, [...path, 'base_model']) }),
      parameters: slice.parameters ?? {},
      path,
    }
  }

  const given = (['models', 'slices', 'modules'] as const).filter((key) => recipe[key] !== undefined)
  if (given.length !== 1)
    report(
      'bad-recipe',
      'A recipe has exactly one of models, slices and modules',
      given.length > 0 ? [given[1]!] : [],
      {
        received: given.join(', ') || 'none of them',
      },
    )
  const scopes: Settings[] = [recipe.parameters ?? {}]
  const scopePaths: Path[] = [['parameters']]
  const { body, path } = bodyOf()
  const slices = body.slices
    ? body.slices.map((slice, i) => sliceOf(slice, [...path, 'slices', i]))
    : body.models
      ? [wholeSlice(body.models, [...path, 'models'])]
      : []
  const base = recipe.base_model === undefined ? undefined : model(recipe.base_model, ['base_model'])
  const tokenizer = tokenizerOf()
  const dtype = recipe.out_dtype ?? recipe.dtype
  const plan: MergePlan = {
    method: recipe.merge_method,
    slices,
    ...(base === undefined ? {} : { base }),
    parameters: scopes,
    parameterPaths: scopePaths,
    ...(dtype ? { dtype: DTYPES[dtype] } : {}),
    ...(tokenizer ? { tokenizer } : {}),
    ...(recipe.chat_template ? { chatTemplate: recipe.chat_template } : {}),
    outside: 'start',
    conventions: 'mergekit',
    path: ['merge_method'],
  }
  return { plan, models, places, problems }

  /** The recipe itself, or its one module. */
  function bodyOf(): { body: { models?: Models | undefined; slices?: Slices | undefined }; path: Path } {
    if (!recipe.modules) return { body: recipe, path: [] }
    const names = Object.keys(recipe.modules)
    for (const name of names.filter((each) => each !== MODULE))
      report(
        'not-supported',
        `Module ${name} is not supported: models here have one part`,
        ['modules', name],
        { expected: MODULE },
      )
    const body = recipe.modules[MODULE] ?? {}
    const path = ['modules', MODULE]
    if (names.includes(MODULE) && (body.models === undefined) === (body.slices === undefined))
      report('bad-recipe', 'A module has exactly one of models and slices', path)
    if (body.parameters) {
      scopes.unshift(body.parameters)
      scopePaths.unshift([...path, 'parameters'])
    }
    return { body, path }
  }

  function tokenizerOf(): PlannedTokenizer | undefined {
    const { tokenizer: settings, tokenizer_source: source } = recipe
    if (settings && source !== undefined)
      report('bad-recipe', 'Give either tokenizer or tokenizer_source', ['tokenizer_source'])
    if (!settings && source === undefined) return undefined
    const written = settings ? (settings.source ?? 'union') : source!
    const path: Path = settings ? ['tokenizer', 'source'] : ['tokenizer_source']
    const tokens = Object.entries(settings?.tokens ?? {}).map(
      ([token, each]) => [token, tokenOf(each, ['tokenizer', 'tokens', token])] as const,
    )
    return {
      source: written === 'union' || written === 'base' ? written : { model: model(written, path) },
      tokens: Object.fromEntries(
        tokens.filter((entry): entry is [string, PlannedToken] => entry[1] !== undefined),
      ),
      ...(settings?.pad_to_multiple_of ? { padToMultipleOf: settings.pad_to_multiple_of } : {}),
    }
  }

  type Token = NonNullable<NonNullable<MergekitRecipe['tokenizer']>['tokens']>[string]

  function tokenOf({ source, force = false }: Token, path: Path): PlannedToken | undefined {
    if (source === undefined) {
      report('missing-key', 'source is missing: nothing says whose embedding the token gets', path)
      return undefined
    }
    if (typeof source === 'string' || !('kind' in source))
      return { source: { kind: 'model', model: model(source, [...path, 'source']) }, force }
    if (source.kind === 'zero') return { source, force }
    const { token, token_id: id } = source
    if ((token === undefined) === (id === undefined)) {
      report('bad-value', 'A token is named by exactly one of token and token_id', [...path, 'source'])
      return undefined
    }
    const from = model(source.model, [...path, 'source', 'model'])
    return { source: { kind: 'token', model: from, token: token ?? id! }, force }
  }
}
