import { familyNamed } from '@polygraft/architectures'
import { isVocabularyTensor, readVocabulary, storedExpr, vocabularyRows } from '@polygraft/delta'
import {
  type Checkpoint,
  type Expr,
  isFloat,
  literal,
  ModelError,
  mergeSources,
  type Problem,
  type Source,
  type SourceId,
  type Tensor,
} from '@polygraft/tensor'
import { type RowSource, rowsExpr } from './_embedding-rows.js'
import {
  donorVocabulary,
  type OutputVocabulary,
  unionVocabulary,
  type VocabularyModel,
} from './_output-vocabulary.js'

/** Whose row a token gets in the models that have none, or with `force` in every model. Models are meant by index. */
export interface TokenSetting {
  readonly source:
    | { readonly kind: 'zero' }
    /** The model's row of the same token. */
    | { readonly kind: 'model'; readonly model: number }
    /** The model's row of another token, or of an id. */
    | { readonly kind: 'token'; readonly model: number; readonly token: string | number }
  readonly force: boolean
}

export interface NamedModel {
  /** As the user knows it. */
  readonly label: string
  readonly checkpoint: Checkpoint
}

/** What the tokenizer of a merged model is to be. */
export interface TokenizerSetting {
  /** A model of the merge, or one from outside that gives its tokenizer and no rows. */
  readonly source: 'union' | { readonly model: number | NamedModel }
  readonly tokens: ReadonlyMap<string, TokenSetting>
  /** The number of rows is rounded up to a multiple of it; new ones are the mean of all tokens' rows. */
  readonly padToMultipleOf?: number
}

/** The mean of the first `rows` rows of a tensor [V, H]. */
export type MeasureMeanRow = (
  tensor: Tensor,
  rows: number,
  sources: ReadonlyMap<SourceId, Source>,
) => Promise<Float32Array>

export interface AlignedModels {
  readonly models: readonly Checkpoint[]
  /** Undefined where nothing had to move. */
  readonly vocabulary: OutputVocabulary | undefined
  readonly warnings: readonly Problem[]
}

/**
 * Brings the vocabulary tensors (embedding and head, [V, H]) of models that are to be merged into the same rows, by token
 * string. A model that lacks a token gets, for it, what `setting` says; else the row of the only other model that has it, or
 * base's if base has it, or the mean of those that have it. Without a setting the rows are those of `base` (else of the first
 * model), and nothing moves where all vocabularies are equal.
 * @param base Index of the base, where the merge has one.
 * @throws ModelError "vocabulary-unknown" for every model whose tokenizer is needed and cannot be read; "tokenizers-differ",
 *   "unknown-token".
 */
export async function alignModels(
  named: readonly NamedModel[],
  base: number | undefined,
  setting: TokenizerSetting | undefined,
  meanRow: MeasureMeanRow,
): Promise<AlignedModels> {
  const models = await Promise.all(named.map(vocabularyModel))
  const asIs = { models: named.map(({ checkpoint }) => checkpoint), vocabulary: undefined, warnings: [] }
  if (models.some(({ rows }) => rows === 0)) return asIs
  const first = base ?? 0
  if (!setting && agree(models)) return asIs
  const assumed = models.map((model) => assumeBase(model, models[first]!))
  const unknown = assumed
    .filter(({ vocabulary }) => !vocabulary)
    .map((model) => unknownVocabulary(model, models[first]!))
  if (unknown.length > 0) throw new ModelError(unknown)
  const vocabulary = await outputVocabulary(assumed, first, setting)
  const tokens = setting?.tokens ?? new Map<string, TokenSetting>()
  const plan = planRows(assumed, base, vocabulary, tokens, setting ? undefined : first)
  const aligned = await Promise.all(assumed.map((_, m) => alignModel(assumed, m, plan, meanRow)))
  const warnings = setting ? [] : [alignedWarning(assumed[first]!)]
  return { models: aligned, vocabulary, warnings: [...warnings, ...vocabulary.warnings, ...plan.warnings] }
}

async function vocabularyModel({ label, checkpoint }: NamedModel): Promise<VocabularyModel> {
  return {
    label,
    checkpoint,
    vocabulary: await readVocabulary(checkpoint),
    rows: vocabularyRows(checkpoint) ?? 0,
  }
}

/** Whether rows go together as they are: as far as tokenizers are known they are the same. */
function agree(models: readonly VocabularyModel[]): boolean {
  const known = models.filter(({ vocabulary }) => vocabulary)
  const [{ vocabulary: first } = {}] = known
  const same = ({ vocabulary }: VocabularyModel) =>
    vocabulary!.ids.size === first!.ids.size &&
    [...vocabulary!.ids].every(([token, id]) => first!.ids.get(token) === id)
  return models.every(({ rows }) => rows === models[0]!.rows) && known.every(same)
}

/** A model without a tokenizer and with as many rows as the base is taken to have the base's. */
function assumeBase(model: VocabularyModel, base: VocabularyModel): VocabularyModel {
  return model.vocabulary || model.rows !== base.rows ? model : { ...model, vocabulary: base.vocabulary }
}

async function outputVocabulary(
  models: readonly VocabularyModel[],
  first: number,
  setting: TokenizerSetting | undefined,
): Promise<OutputVocabulary> {
  if (!setting)
    return { ...(await donorVocabulary(models[first]!, [], undefined)), rows: models[first]!.rows }
  const extra = [...setting.tokens.keys()]
  if (setting.source !== 'union') {
    const { model } = setting.source
    const donor = typeof model === 'number' ? models[model]! : await vocabularyModel(model)
    return donorVocabulary(donor, extra, setting.padToMultipleOf)
  }
  const others = models.filter((_, i) => i !== first)
  return unionVocabulary(models[first]!, others, extra, setting.padToMultipleOf)
}

/** Row sources of every model, for each output row. */
interface RowPlan {
  readonly sources: readonly (readonly RowSource[])[]
  /** One past the last token. */
  readonly tokenRows: number
  readonly warnings: readonly Problem[]
}

/** @param keep The model whose rows are kept where there is no token; undefined: zeros between tokens, behind them their mean. */
function planRows(
  models: readonly VocabularyModel[],
  base: number | undefined,
  { ids, rows }: OutputVocabulary,
  settings: ReadonlyMap<string, TokenSetting>,
  keep: number | undefined,
): RowPlan {
  const tokenRows = [...ids.values()].reduce((most, id) => Math.max(most, id + 1), 0)
  const empty = (row: number): RowSource => {
    if (keep !== undefined) return ownRow(keep, row, models[keep]!.rows)
    return { kind: row < tokenRows ? 'zero' : 'mean' }
  }
  const sources: RowSource[][] = models.map(() => Array.from({ length: rows }, (_, row) => empty(row)))
  const lost: string[] = []
  for (const [token, id] of ids) {
    if (id >= rows) continue
    const own = models.map((model) => rowOf(model, token))
    const setting = settings.get(token)
    const otherwise = setting ? settingRow(setting, token, models, own) : defaultRow(own, base)
    if (!setting && otherwise.kind === 'zero') lost.push(token)
    for (const [m, row] of own.entries())
      sources[m]![id] = row === undefined || setting?.force ? otherwise : { kind: 'rows', of: [[m, row]] }
  }
  return { sources, tokenRows, warnings: lost.length > 0 ? [lostTokens(lost)] : [] }
}

function ownRow(model: number, row: number, rows: number): RowSource {
  return row < rows ? { kind: 'rows', of: [[model, row]] } : { kind: 'zero' }
}

function rowOf({ vocabulary, rows }: VocabularyModel, token: string): number | undefined {
  const id = vocabulary!.ids.get(token)
  return id !== undefined && id < rows ? id : undefined
}

function defaultRow(own: readonly (number | undefined)[], base: number | undefined): RowSource {
  const present = own.flatMap((row, m) => (row === undefined ? [] : [[m, row] as const]))
  if (present.length === 0) return { kind: 'zero' }
  const baseRow = base === undefined ? undefined : own[base]
  if (present.length > 1 && baseRow !== undefined) return { kind: 'rows', of: [[base!, baseRow]] }
  return { kind: 'rows', of: present }
}

function settingRow(
  { source }: TokenSetting,
  token: string,
  models: readonly VocabularyModel[],
  own: readonly (number | undefined)[],
): RowSource {
  if (source.kind === 'zero') return source
  const { model } = source
  const wanted = source.kind === 'model' ? token : source.token
  const row =
    source.kind === 'model'
      ? own[model]
      : typeof source.token === 'number'
        ? source.token
        : rowOf(models[model]!, source.token)
  if (row !== undefined && row < models[model]!.rows) return { kind: 'rows', of: [[model, row]] }
  throw new ModelError({
    code: 'unknown-token',
    message: `Token ${JSON.stringify(token)} is to have the row of ${JSON.stringify(wanted)}, which ${models[model]!.label} does not have`,
    next: 'Name a token of that model, or another model.',
  })
}

async function alignModel(
  models: readonly VocabularyModel[],
  m: number,
  { sources, tokenRows }: RowPlan,
  meanRow: MeasureMeanRow,
): Promise<Checkpoint> {
  const { checkpoint } = models[m]!
  const rows = sources[m]!
  const tensors = new Map(checkpoint.tensors)
  const merged = mergeSources(...models.map((model) => model.checkpoint))
  for (const [name, { shape }] of vocabularyTensors(checkpoint)) {
    const width = shape[1]!
    const others = models.map(({ checkpoint: other }) => stored(other, name))
    const dtypes = new Set(
      rows.flatMap((row) => (row.kind === 'rows' ? row.of.map(([d]) => others[d]!.dtype) : [])),
    )
    const exact = dtypes.size === 1 && rows.every((row) => row.kind === 'rows' && row.of.length === 1)
    const dtype = exact ? [...dtypes][0]! : dtypes.has('F64') ? 'F64' : 'F32'
    const build = (list: readonly RowSource[], mean?: Expr): Tensor => ({
      dtype,
      shape: [list.length, ...shape.slice(1)],
      expr: rowsExpr(list, others, width, mean),
    })
    const padded = rows.some(({ kind }) => kind === 'mean')
    const mean = padded
      ? literal(await meanRow(build(rows.slice(0, tokenRows)), tokenRows, merged))
      : undefined
    tensors.set(name, build(rows, mean))
  }
  return {
    ...checkpoint,
    config: { ...checkpoint.config, vocab_size: rows.length },
    tensors,
    sources: merged,
  }
}

function vocabularyTensors({ config, tensors }: Checkpoint): [string, Tensor][] {
  const family = typeof config.model_type === 'string' ? familyNamed(config.model_type) : undefined
  return [...tensors].filter(([name]) => isVocabularyTensor(family, name))
}

/** Tensor `name` of a model; the embedding where it is tied. */
function stored(checkpoint: Checkpoint, name: string) {
  const tensor = checkpoint.tensors.get(name) ?? vocabularyTensors(checkpoint)[0]![1]
  if (!isFloat(tensor.dtype))
    throw new ModelError({
      code: 'not-float',
      message: 'Rows of a quantised tensor cannot be aligned',
      tensor: name,
      expected: 'F64, F32, F16 or BF16',
      received: tensor.dtype,
      next: 'Use the unquantised checkpoint.',
    })
  return { expr: storedExpr(tensor, checkpoint), rows: tensor.shape[0]!, dtype: tensor.dtype }
}

function unknownVocabulary({ label, rows }: VocabularyModel, base: VocabularyModel): Problem {
  return {
    code: 'vocabulary-unknown',
    message: `No tokenizer could be read from ${label}, and its rows cannot be aligned without`,
    expected: `a tokenizer.json, or ${base.rows} rows as in ${base.label}`,
    received: `${rows} rows`,
    next: 'Save the tokenizer that belongs to the weights beside them.',
  }
}

function alignedWarning({ label }: VocabularyModel): Problem {
  return {
    code: 'vocabularies-differ',
    message: `The vocabularies differ; rows are aligned by token to those of ${label}`,
    next: 'Set the tokenizer source to choose another vocabulary, such as the union.',
  }
}

const SHOWN = 5

function lostTokens(tokens: readonly string[]): Problem {
  const shown = tokens.slice(0, SHOWN).map((token) => JSON.stringify(token))
  return {
    code: 'no-embedding',
    message: `${tokens.length === 1 ? 'A token has' : `${tokens.length} tokens have`} a row in none of the models; it is zero: ${shown.join(', ')}${tokens.length > SHOWN ? ', ...' : ''}`,
  }
}
