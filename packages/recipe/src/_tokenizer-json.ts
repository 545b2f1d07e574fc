import { type Checkpoint, type JsonObject, type JsonValue, ModelError } from '@polygraft/tensor'
import { isJsonObject, parseJson, readText } from '@polygraft/tensor-io'

/** A token that the tokenizer finds in the text before anything else, as `tokenizer.json` writes it. */
export interface AddedToken {
  readonly content: string
  readonly single_word: boolean
  readonly lstrip: boolean
  readonly rstrip: boolean
  readonly normalized: boolean
  readonly special: boolean
}

/** A `tokenizer.json`, as far as putting two together needs it. */
export interface TokenizerJson {
  readonly json: JsonObject
  readonly model: JsonObject
  readonly kind: string
  /** Tokens of the model, without added ones, by id. */
  readonly vocab: ReadonlyMap<string, number>
  readonly added: ReadonlyMap<string, { readonly id: number; readonly token: AddedToken }>
}

/** The `tokenizer.json` of a checkpoint; undefined where it has none. */
export async function readTokenizerJson({ files }: Checkpoint): Promise<TokenizerJson | undefined> {
  const file = 'tokenizer.json'
  const source = files.get(file)
  if (!source) return undefined
  const json = parseJson(await readText(source, file), file)
  const model = isJsonObject(json) ? json.model : undefined
  if (!isJsonObject(json) || !isJsonObject(model))
    throw new ModelError({ code: 'bad-tokenizer', message: 'The tokenizer has no model', file })
  return { json, model, kind: kindOf(model), vocab: vocabOf(model), added: addedOf(json) }
}

/** Old files leave the type out. */
function kindOf({ type, merges, unk_id }: JsonObject): string {
  if (typeof type === 'string') return type
  return merges !== undefined ? 'BPE' : unk_id !== undefined ? 'Unigram' : 'WordLevel'
}

function vocabOf({ vocab }: JsonObject): ReadonlyMap<string, number> {
  if (Array.isArray(vocab)) {
    const pieces = vocab as readonly JsonValue[]
    return new Map(pieces.map((piece, id) => [String(Array.isArray(piece) ? piece[0] : piece), id]))
  }
  return new Map(Object.entries(isJsonObject(vocab ?? null) ? (vocab as Record<string, number>) : {}))
}

function addedOf({ added_tokens: added }: JsonObject): TokenizerJson['added'] {
  const entries = (Array.isArray(added) ? added : []).filter(isJsonObject).map((entry) => {
    const { id, ...token } = entry as unknown as AddedToken & { id: number }
    return [token.content, { id, token }] as const
  })
  return new Map(entries)
}

/** A text that is to be one token, and is nothing special. */
export function plainToken(content: string): AddedToken {
  return { content, single_word: false, lstrip: false, rstrip: false, normalized: true, special: false }
}

/** Tokens for a tokenizer that lacks them, with the ids that they get. */
export interface NewTokens {
  readonly added: ReadonlyMap<number, AddedToken>
  /** Tokens of the model: pieces of text that its own algorithm puts together. */
  readonly model: ReadonlyMap<number, string>
  /** Where those come from: their merges or scores are taken along. */
  readonly from: readonly TokenizerJson[]
}

/** `base` with `tokens` behind its own, which keep their ids. */
export function withTokens(base: TokenizerJson, tokens: NewTokens): JsonObject {
  const entries = [...tokens.added].map(([id, token]) => ({ id, ...token }))
  const before = (Array.isArray(base.json.added_tokens) ? base.json.added_tokens : []) as readonly JsonValue[]
  const model = tokens.model.size > 0 ? withPieces(base, tokens) : base.model
  return { ...base.json, added_tokens: [...before, ...entries], model }
}

function withPieces(base: TokenizerJson, { model, from }: NewTokens): JsonObject {
  if (Array.isArray(base.model.vocab))
    return { ...base.model, vocab: [...base.model.vocab, ...scores(model, from)] }
  const vocab = {
    ...(base.model.vocab as JsonObject),
    ...Object.fromEntries([...model].map(([id, t]) => [t, id])),
  }
  if (base.kind !== 'BPE') return { ...base.model, vocab }
  return { ...base.model, vocab, merges: mergesOf(base, from, new Set(Object.keys(vocab))) }
}

/** Unigram: the pieces with the scores that they had. */
function scores(model: ReadonlyMap<number, string>, from: readonly TokenizerJson[]): JsonValue[] {
  const known = new Map(
    from.flatMap(({ model: { vocab } }) =>
      (Array.isArray(vocab) ? (vocab as readonly JsonValue[]) : []).map((piece) => [
        String((piece as readonly JsonValue[])[0]),
        piece,
      ]),
    ),
  )
  return [...model.values()].map((token) => known.get(token)!)
}

/** BPE: base's merges, and behind them those that the others have more. */
function mergesOf(
  base: TokenizerJson,
  from: readonly TokenizerJson[],
  vocab: ReadonlySet<string>,
): JsonValue[] {
  const merges = [...((base.model.merges as readonly JsonValue[] | undefined) ?? [])]
  const asText = typeof merges[0] === 'string'
  const known = new Set(merges.map((merge) => pairOf(merge).join(' ')))
  for (const merge of from.flatMap(({ model }) => (model.merges as readonly JsonValue[] | undefined) ?? [])) {
    const [a, b] = pairOf(merge)
    if (known.has(`${a} ${b}`) || !vocab.has(a) || !vocab.has(b) || !vocab.has(a + b)) continue
    known.add(`${a} ${b}`)
    merges.push(asText ? `${a} ${b}` : [a, b])
  }
  return merges
}

function pairOf(merge: JsonValue): readonly [string, string] {
  const [a = '', b = ''] = typeof merge === 'string' ? merge.split(' ') : (merge as readonly string[])
  return [a, b]
}
