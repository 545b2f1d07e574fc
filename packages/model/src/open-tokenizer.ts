import { Template } from '@huggingface/jinja'
import { Tokenizer } from '@huggingface/tokenizers'
import { dimensionsOf, familyOf } from '@polygraft/architectures'
import { type Checkpoint, type JsonObject, type JsonValue, ModelError } from '@polygraft/tensor'
import { isJsonObject, parseJson, readText } from '@polygraft/tensor-io'

/** One turn of a conversation. */
export interface ChatMessage {
  readonly role: string
  readonly content: string
}

/** A checkpoint's tokenizer and chat template. */
export interface TextTokenizer {
  /** Token ids, with the special tokens that the tokenizer puts around a text. */
  encode(text: string): number[]
  /** A text as a document begins: what the tokenizer puts before one is there once, also where the text spells it out, and nothing after it. */
  begin(text: string): number[]
  /** A text that goes on: without special tokens. */
  continue(text: string): number[]
  /** The begin token, where the tokenizer names one, and the text; no other special tokens but those that the text spells. */
  encodePrompt(text: string): number[]
  /** Text without special tokens. */
  decode(tokens: readonly number[]): string
  /**
   * A conversation as the chat template writes it, up to where the answer begins.
   * @throws ModelError "no-chat-template", "bad-chat-template".
   */
  encodeChat(messages: readonly ChatMessage[]): number[]
}

/**
 * Reads tokenizer.json, tokenizer_config.json and chat_template.jinja.
 * @throws ModelError "no-tokenizer", "bad-tokenizer", "bad-json", "vocabulary-mismatch" where a token has no row in the embedding.
 */
export async function openTokenizer(checkpoint: Checkpoint): Promise<TextTokenizer> {
  const { files, config } = checkpoint
  if (!files.has('tokenizer.json'))
    throw new ModelError({
      code: 'no-tokenizer',
      message: 'The checkpoint has no tokenizer',
      file: 'tokenizer.json',
      next: 'Copy tokenizer.json and tokenizer_config.json of the model that it comes from beside the weights.',
    })
  const definition = await readObject(checkpoint, 'tokenizer.json')
  const settings = await readObject(checkpoint, 'tokenizer_config.json')
  const tokenizer = createTokenizer(definition, settings)
  checkVocabulary(tokenizer, dimensionsOf(familyOf(config), config).vocabularySize)
  const template = await templateOf(checkpoint, settings)
  const beginToken = textOf(settings.bos_token) ?? ''
  const plain = (text: string) => [...tokenizer.encode(text, { add_special_tokens: false }).ids]
  const prefix = prefixOf(plain('a'), tokenizer.encode('a').ids)
  return {
    encode: (text) => [...tokenizer.encode(text).ids],
    begin(text) {
      const ids = plain(text)
      return prefix.every((id, i) => ids[i] === id) ? ids : [...prefix, ...ids]
    },
    continue: plain,
    encodePrompt: (text) => plain(beginToken + text),
    decode: (tokens) =>
      tokens.length === 0 ? '' : tokenizer.decode([...tokens], { skip_special_tokens: true }),
    encodeChat(messages) {
      return plain(renderChat(template, settings, messages))
    },
  }
}

/** The end tokens of generation_config.json, or else of the config. */
export async function readEndTokens(checkpoint: Checkpoint): Promise<number[]> {
  const generation = await readObject(checkpoint, 'generation_config.json')
  const ids = generation.eos_token_id ?? checkpoint.config.eos_token_id ?? []
  return (Array.isArray(ids) ? ids : [ids]).filter((id): id is number => typeof id === 'number')
}

/** An empty object where the file is absent. */
async function readObject({ files }: Checkpoint, file: string): Promise<JsonObject> {
  const source = files.get(file)
  if (!source) return {}
  const value = parseJson(await readText(source, file), file)
  if (isJsonObject(value)) return value
  throw new ModelError({ code: 'bad-json', message: 'The file does not hold a JSON object', file })
}

function createTokenizer(definition: JsonObject, settings: JsonObject): Tokenizer {
  try {
    return new Tokenizer(definition, settings)
  } catch (cause) {
    const received = cause instanceof Error ? cause.message : String(cause)
    throw new ModelError(
      { code: 'bad-tokenizer', message: 'The tokenizer cannot be used', file: 'tokenizer.json', received },
      { cause },
    )
  }
}

/** What `whole` has before `plain`. */
function prefixOf(plain: readonly number[], whole: readonly number[]): readonly number[] {
  const begin = whole.findIndex((_, i) => plain.every((id, j) => whole[i + j] === id))
  return whole.slice(0, Math.max(0, begin))
}

function checkVocabulary(tokenizer: Tokenizer, size: number): void {
  let [token, largest] = ['', -1]
  for (const [each, id] of tokenizer.get_vocab(true)) if (id > largest) [token, largest] = [each, id]
  if (largest < size) return
  throw new ModelError({
    code: 'vocabulary-mismatch',
    message: 'The tokenizer does not fit the model: a token has no row in the embedding',
    file: 'tokenizer.json',
    expected: `ids below ${size}`,
    received: `${JSON.stringify(token)} with id ${largest}`,
    next: 'Use the tokenizer that belongs to these weights.',
  })
}

/** chat_template.jinja, or the config's template: a string, or a list of named ones of which `default` counts. */
async function templateOf({ files }: Checkpoint, settings: JsonObject): Promise<string | undefined> {
  const file = files.get('chat_template.jinja')
  if (file) return readText(file, 'chat_template.jinja')
  const given = settings.chat_template
  if (typeof given === 'string') return given
  const named = (Array.isArray(given) ? given : []).filter(isJsonObject)
  const found = named.find(({ name }) => name === 'default')?.template
  return typeof found === 'string' ? found : undefined
}

function renderChat(
  template: string | undefined,
  settings: JsonObject,
  messages: readonly ChatMessage[],
): string {
  if (template === undefined)
    throw new ModelError({
      code: 'no-chat-template',
      message: 'The checkpoint has no chat template',
      file: 'chat_template.jinja',
      next: 'Give plain text in place of a conversation, or the chat template of the instruct model.',
    })
  const tokens = Object.entries(settings).flatMap(([name, value]) => {
    const text = name.endsWith('_token') ? textOf(value) : undefined
    return text === undefined ? [] : [[name, text] as const]
  })
  try {
    return new Template(template).render({
      ...Object.fromEntries(tokens),
      messages,
      add_generation_prompt: true,
    })
  } catch (cause) {
    const received = cause instanceof Error ? cause.message : String(cause)
    const problem = { code: 'bad-chat-template', message: 'The chat template refuses the conversation' }
    throw new ModelError({ ...problem, received }, { cause })
  }
}

/** A special token is given as its text, or as an object with it. */
function textOf(value: JsonValue | undefined): string | undefined {
  const content = isJsonObject(value) ? value.content : value
  return typeof content === 'string' ? content : undefined
}
