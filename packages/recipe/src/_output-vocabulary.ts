import { isTemplateFile, isTokenizerFile, type Vocabulary } from '@polygraft/delta'
import {
  type ByteSource,
  type Checkpoint,
  type JsonObject,
  type JsonValue,
  ModelError,
  type Problem,
} from '@polygraft/tensor'
import { isJsonObject, parseJson, readText } from '@polygraft/tensor-io'
import {
  type AddedToken,
  plainToken,
  readTokenizerJson,
  type TokenizerJson,
  withTokens,
} from './_tokenizer-json.js'

/** A model whose rows are to be aligned. */
export interface VocabularyModel {
  readonly label: string
  readonly checkpoint: Checkpoint
  /** Undefined where no tokenizer could be read. */
  readonly vocabulary: Vocabulary | undefined
  /** Rows of its embedding. */
  readonly rows: number
}

/** The vocabulary of a merged model. */
export interface OutputVocabulary {
  readonly ids: ReadonlyMap<string, number>
  /** Rows of embedding and head. */
  readonly rows: number
  /** Which model's tokenizer files these are. */
  readonly donor: Checkpoint
  /** Tokenizer and chat template. */
  readonly files: ReadonlyMap<string, ByteSource>
  readonly warnings: readonly Problem[]
}

/**
 * The tokenizer of `donor`, with `extra` tokens behind its own.
 * @throws ModelError "vocabulary-unknown" where it cannot be read, or cannot be added to.
 */
export async function donorVocabulary(
  donor: VocabularyModel,
  extra: readonly string[],
  padTo: number | undefined,
): Promise<OutputVocabulary> {
  const ids = new Map(vocabularyOf(donor))
  const added = addPlain(ids, extra, behind(ids))
  const files = tokenizerFiles(donor.checkpoint)
  const changed =
    added.size > 0 ? await rewrite(files, await jsonOf(donor), { added, model: NONE, from: [] }) : files
  return { ids, rows: rowsFor(ids, padTo), donor: donor.checkpoint, files: changed, warnings: [] }
}

const NONE: ReadonlyMap<number, string> = new Map()

/**
 * The tokenizer of `base` with all tokens of the others behind its own, which keep their ids: model by model, in the order of
 * ids, first pieces of the tokenizers' models (with their merges or scores), then added tokens. Where two models give a token
 * other settings the first ones count, with a warning.
 * @throws ModelError "vocabulary-unknown", "tokenizers-differ".
 */
export async function unionVocabulary(
  base: VocabularyModel,
  others: readonly VocabularyModel[],
  extra: readonly string[],
  padTo: number | undefined,
): Promise<OutputVocabulary> {
  const known = others.filter(({ vocabulary }) => vocabulary !== undefined)
  const ids = new Map(vocabularyOf(base))
  const isNew = ({ vocabulary, rows }: VocabularyModel) =>
    [...vocabulary!.ids].some(([t, id]) => id < rows && !ids.has(t))
  if (!known.some(isNew)) return donorVocabulary(base, extra, padTo)
  const own = await jsonOf(base)
  const donors = await Promise.all(known.map(async (model) => ({ model, json: await jsonOf(model) })))
  const add = behind(ids)
  const model = addPieces(ids, { model: base, json: own }, donors, add)
  const { added, warnings } = addAdded(ids, own, donors, add)
  for (const [id, token] of addPlain(ids, extra, add)) added.set(id, token)
  const from = donors.map(({ json }) => json)
  const files = await rewrite(tokenizerFiles(base.checkpoint), own, { added, model, from })
  return { ids, rows: rowsFor(ids, padTo), donor: base.checkpoint, files, warnings }
}

/** A model with its `tokenizer.json`. */
interface Donor {
  readonly model: VocabularyModel
  readonly json: TokenizerJson
}

type Add = (token: string) => number

/** Gives tokens the ids behind all of `ids`, and puts them there. Gaps are not filled. */
function behind(ids: Map<string, number>): Add {
  let next = lastId(ids) + 1
  return (token) => {
    ids.set(token, next)
    return next++
  }
}

function addPlain(
  ids: ReadonlyMap<string, number>,
  tokens: readonly string[],
  add: Add,
): Map<number, AddedToken> {
  const missing = tokens.filter((token) => !ids.has(token))
  return new Map(missing.map((token) => [add(token), plainToken(token)]))
}

function addPieces(
  ids: ReadonlyMap<string, number>,
  base: Donor,
  donors: readonly Donor[],
  add: Add,
): ReadonlyMap<number, string> {
  const isAdded = (token: string) => [base, ...donors].some(({ json }) => json.added.has(token))
  const pieces = new Map<number, string>()
  for (const donor of donors) {
    const { json, model } = donor
    for (const [token] of inOrder(json.vocab, model.rows)) {
      if (ids.has(token) || isAdded(token)) continue
      if (json.kind !== base.json.kind) throw new ModelError(otherKind(base, donor, token))
      pieces.set(add(token), token)
    }
  }
  return pieces
}

function addAdded(ids: ReadonlyMap<string, number>, base: TokenizerJson, donors: readonly Donor[], add: Add) {
  const settings = new Map([...base.added].map(([content, { token }]) => [content, token]))
  const added = new Map<number, AddedToken>()
  const warnings: Problem[] = []
  for (const { json, model } of donors) {
    const own = new Map([...json.added].map(([content, { id }]) => [content, id]))
    for (const [content] of inOrder(own, model.rows)) {
      const { token } = json.added.get(content)!
      const first = settings.get(content)
      if (first && JSON.stringify(first) !== JSON.stringify(token))
        warnings.push(otherSettings(content, model))
      if (first) continue
      settings.set(content, token)
      // A piece of the base's that another model takes as a whole keeps its id.
      added.set(ids.get(content) ?? add(content), token)
    }
  }
  return { added, warnings }
}

/** The tokens that have a row, by id. */
function inOrder(ids: ReadonlyMap<string, number>, rows: number): [string, number][] {
  return [...ids].filter(([, id]) => id < rows).sort((a, b) => a[1] - b[1])
}

function lastId(ids: ReadonlyMap<string, number>): number {
  let most = -1
  for (const id of ids.values()) most = Math.max(most, id)
  return most
}

function rowsFor(ids: ReadonlyMap<string, number>, multiple = 1): number {
  return Math.ceil((lastId(ids) + 1) / multiple) * multiple
}

function vocabularyOf({ vocabulary, label }: VocabularyModel): ReadonlyMap<string, number> {
  if (vocabulary) return vocabulary.ids
  throw new ModelError({
    code: 'vocabulary-unknown',
    message: `No tokenizer could be read from ${label}`,
    expected: 'a tokenizer.json beside the weights',
    next: 'Save the tokenizer that belongs to the weights beside them.',
  })
}

async function jsonOf({ checkpoint, label }: VocabularyModel): Promise<TokenizerJson> {
  const json = await readTokenizerJson(checkpoint)
  if (json) return json
  throw new ModelError({
    code: 'vocabulary-unknown',
    message: `The tokenizer of ${label} has no tokenizer.json, and tokens can be put together in that form only`,
    next: "Save it as a fast tokenizer with transformers' save_pretrained.",
  })
}

function otherKind(base: Donor, donor: Donor, token: string): Problem {
  const [a, b] = [base.model.label, donor.model.label]
  return {
    code: 'tokenizers-differ',
    message: `Tokenizers of two kinds have no union: ${b} has ${JSON.stringify(token)}, which ${a} lacks`,
    expected: `${base.json.kind} as in ${a}`,
    received: `${donor.json.kind} in ${b}`,
    next: 'Choose one with tokenizer: {source: base}.',
  }
}

function otherSettings(token: string, { label }: VocabularyModel): Problem {
  return {
    code: 'token-settings',
    message: `Token ${JSON.stringify(token)} has other settings in ${label} than in a model before it; the first ones count`,
  }
}

function tokenizerFiles({ files }: Checkpoint): ReadonlyMap<string, ByteSource> {
  return new Map([...files].filter(([name]) => isTokenizerFile(name) || isTemplateFile(name)))
}

// The form of slow tokenizers, which would not know pieces that only tokenizer.json got.
const SLOW =
  /^(vocab\.(json|txt|bpe)|merges\.txt|tokenizer\.model|(spiece|sentencepiece(\.bpe)?)\.model|added_tokens\.json)$/

async function rewrite(
  files: ReadonlyMap<string, ByteSource>,
  base: TokenizerJson,
  tokens: Parameters<typeof withTokens>[1],
): Promise<ReadonlyMap<string, ByteSource>> {
  const kept = [...files].filter(([name]) => !SLOW.test(name))
  const result = new Map<string, ByteSource>(kept)
  result.set('tokenizer.json', jsonFile(withTokens(base, tokens)))
  const config = files.get('tokenizer_config.json')
  const parsed = config && parseJson(await readText(config), 'tokenizer_config.json')
  if (isJsonObject(parsed ?? null)) {
    const { added_tokens_decoder: decoder, ...rest } = parsed as JsonObject
    if (isJsonObject(decoder ?? null))
      result.set(
        'tokenizer_config.json',
        jsonFile({
          ...rest,
          added_tokens_decoder: { ...(decoder as JsonObject), ...decoderOf(tokens.added) },
        }),
      )
  }
  return result
}

function decoderOf(added: ReadonlyMap<number, AddedToken>): JsonObject {
  return Object.fromEntries([...added].map(([id, token]) => [`${id}`, { ...token } as unknown as JsonValue]))
}

/** A file of a checkpoint that holds `value`. */
export function jsonFile(value: JsonObject): ByteSource {
  return new Blob([`${JSON.stringify(value, undefined, 2)}\n`])
}
