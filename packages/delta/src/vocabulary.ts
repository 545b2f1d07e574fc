import {
  type ByteSource,
  type Checkpoint,
  type JsonObject,
  type JsonValue,
  ModelError,
} from '@polygraft/tensor'

/** A tokenizer as far as surgery on embeddings needs it. */
export interface Vocabulary {
  /** Id by token string, added tokens included. The strings are the tokenizer's own spelling (byte-level, `▁`, ...). */
  readonly ids: ReadonlyMap<string, number>
  /** Jinja text by name out of `tokenizer_config.json`; the usual one is named `default`. */
  readonly chatTemplates: ReadonlyMap<string, string>
}

/** The three tokenizers that meet in a graft; absent where a checkpoint has none that can be read. */
export interface Vocabularies {
  readonly base?: Vocabulary | undefined
  readonly post?: Vocabulary | undefined
  readonly cpt?: Vocabulary | undefined
  /** Of a stored delta: post's, which it carries. */
  readonly delta?: Vocabulary | undefined
}

/**
 * The vocabulary of a checkpoint: of `tokenizer.json` (BPE, WordLevel, WordPiece, Unigram) with its added tokens, else
 * of `vocab.json` or `vocab.txt` with `added_tokens.json` and `tokenizer_config.json`. Undefined when it has none of
 * these; a lone `tokenizer.model` is not read.
 * @throws ModelError "bad-json" or "bad-tokenizer" naming the file.
 */
export async function readVocabulary(checkpoint: Checkpoint): Promise<Vocabulary | undefined> {
  const config = await readObject(checkpoint, 'tokenizer_config.json')
  const tokenizer = await readObject(checkpoint, 'tokenizer.json')
  const ids = tokenizer ? idsOfTokenizer(tokenizer) : await idsOfParts(checkpoint, config)
  return ids && { ids, chatTemplates: chatTemplatesOf(config) }
}

/** `readVocabulary` of every checkpoint that is given, ready for `createDelta` and `graft`. */
export async function readVocabularies(checkpoints: {
  readonly base?: Checkpoint
  readonly post?: Checkpoint
  readonly cpt?: Checkpoint
  readonly delta?: Checkpoint
}): Promise<Vocabularies> {
  const { base, post, cpt, delta } = checkpoints
  return {
    base: base && (await readVocabulary(base)),
    post: post && (await readVocabulary(post)),
    cpt: cpt && (await readVocabulary(cpt)),
    delta: delta && (await readVocabulary(delta)),
  }
}

function idsOfTokenizer(tokenizer: JsonObject): ReadonlyMap<string, number> {
  const file = 'tokenizer.json'
  const model = objectOf(tokenizer.model)
  const vocab = model?.vocab
  const ids = new Map<string, number>()
  if (Array.isArray(vocab)) {
    // Unigram: [piece, score] at the place of its id.
    vocab.forEach((entry: JsonValue, id) => {
      addToken(ids, Array.isArray(entry) ? entry[0] : undefined, id, file)
    })
  } else addTokens(ids, vocab, file)
  for (const entry of arrayOf(tokenizer.added_tokens)) {
    const token = objectOf(entry)
    addToken(ids, token?.content, token?.id, file)
  }
  return ids
}

async function idsOfParts(checkpoint: Checkpoint, config: JsonObject | undefined) {
  const vocab = await readObject(checkpoint, 'vocab.json')
  const lines = vocab ? undefined : await readText(checkpoint, 'vocab.txt')
  if (!vocab && lines === undefined) return undefined
  const ids = new Map<string, number>()
  if (vocab) addTokens(ids, vocab, 'vocab.json')
  else
    for (const [id, token] of (lines ?? '')
      .replace(/\r?\n$/, '')
      .split(/\r?\n/)
      .entries())
      ids.set(token, id)
  const added = await readObject(checkpoint, 'added_tokens.json')
  if (added) addTokens(ids, added, 'added_tokens.json')
  for (const [id, entry] of Object.entries(objectOf(config?.added_tokens_decoder) ?? {}))
    addToken(ids, objectOf(entry)?.content, Number(id), 'tokenizer_config.json')
  return ids
}

function addTokens(ids: Map<string, number>, vocab: JsonValue | undefined, file: string): void {
  const object = objectOf(vocab)
  if (!object) throw badTokenizer(file, 'an object of ids by token', JSON.stringify(vocab)?.slice(0, 60))
  for (const token of Object.keys(object)) addToken(ids, token, object[token], file)
}

function addToken(
  ids: Map<string, number>,
  token: JsonValue | undefined,
  id: JsonValue | undefined,
  file: string,
): void {
  if (typeof token !== 'string' || typeof id !== 'number' || !Number.isSafeInteger(id) || id < 0)
    throw badTokenizer(file, 'a string and an id >= 0', `${JSON.stringify(token)}: ${JSON.stringify(id)}`)
  ids.set(token, id)
}

function badTokenizer(file: string, expected: string, received = 'nothing'): ModelError {
  return new ModelError({
    code: 'bad-tokenizer',
    message: 'The tokenizer has a vocabulary of an unknown shape',
    file,
    expected,
    received,
    next: 'Save the tokenizer again with `save_pretrained`.',
  })
}

/** Either one template, or a list of named ones. */
function chatTemplatesOf(config: JsonObject | undefined): ReadonlyMap<string, string> {
  const given = config?.chat_template
  if (typeof given === 'string') return new Map([['default', given]])
  const templates = new Map<string, string>()
  for (const entry of arrayOf(given)) {
    const { name, template } = objectOf(entry) ?? {}
    if (typeof name === 'string' && typeof template === 'string') templates.set(name, template)
  }
  return templates
}

async function readObject(checkpoint: Checkpoint, file: string): Promise<JsonObject | undefined> {
  const text = await readText(checkpoint, file)
  if (text === undefined) return undefined
  const object = objectOf(parse(text, file))
  if (!object) throw badTokenizer(file, 'a JSON object', text.slice(0, 60))
  return object
}

async function readText(checkpoint: Checkpoint, file: string): Promise<string | undefined> {
  const source: ByteSource | undefined = checkpoint.files.get(file)
  return source && new TextDecoder().decode(await source.arrayBuffer())
}

function parse(text: string, file: string): JsonValue {
  try {
    return JSON.parse(text)
  } catch (cause) {
    const problem = { code: 'bad-json', message: `Not JSON: ${(cause as Error).message}`, file }
    throw new ModelError(problem, { cause })
  }
}

function objectOf(value: JsonValue | undefined): JsonObject | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as JsonObject)
    : undefined
}

function arrayOf(value: JsonValue | undefined): readonly JsonValue[] {
  return Array.isArray(value) ? value : []
}
