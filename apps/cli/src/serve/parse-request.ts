import { ModelError, type Problem } from '@polygraft/tensor'
import type { AnswerOptions, ChatMessage, Prompt } from './answerer.js'

/** A completion request of the OpenAI protocol, checked. */
export interface CompletionRequest {
  readonly prompt: Prompt
  readonly options: AnswerOptions
  readonly stream: boolean
  /** Whether the stream ends with a chunk that counts tokens. */
  readonly includeUsage: boolean
}

type Fields = Readonly<Record<string, unknown>>

/** Fields that change an answer in ways that are not supported, and the values at which they do nothing. */
const UNSUPPORTED: Readonly<Record<string, readonly unknown[]>> = {
  n: [1],
  best_of: [1],
  logprobs: [false, 0],
  echo: [false],
  suffix: [''],
  tools: [],
  functions: [],
  presence_penalty: [0],
  frequency_penalty: [0],
  logit_bias: [],
}

/**
 * The body of POST /v1/chat/completions or /v1/completions. Fields that would change the answer and are not supported are refused; those that
 * only describe the caller (`user`, `metadata`, ...) are ignored.
 * @throws ModelError "bad-request" with everything that is wrong, the field in `received`.
 */
export function parseRequest(body: unknown, kind: 'chat' | 'text'): CompletionRequest {
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    throw new ModelError({ code: 'bad-request', message: 'The body is not a JSON object' })
  const fields = body as Fields
  const problems: Problem[] = []
  const bad = (field: string, expected: string) =>
    void problems.push({
      code: 'bad-request',
      message: `${field} is not usable`,
      expected,
      received: shorten(fields[field]),
    })
  for (const [field, harmless] of Object.entries(UNSUPPORTED)) {
    const value = fields[field]
    const isEmpty = typeof value === 'object' && value !== null && Object.keys(value).length === 0
    if (value !== undefined && value !== null && !isEmpty && !harmless.includes(value))
      bad(field, 'nothing: it is not supported')
  }
  const number = (field: string, low: number, high: number, whole = false): number | undefined => {
    const value = fields[field]
    if (value === undefined || value === null) return undefined
    const fits =
      typeof value === 'number' && value >= low && value <= high && (!whole || Number.isSafeInteger(value))
    if (!fits) bad(field, `${whole ? 'a whole number' : 'a number'} from ${low} to ${high}`)
    return fits ? value : undefined
  }
  const maxNewTokens =
    number('max_completion_tokens', 1, 2 ** 31, true) ?? number('max_tokens', 1, 2 ** 31, true)
  const options = {
    maxNewTokens,
    temperature: number('temperature', 0, 10),
    topP: number('top_p', 0, 1),
    topK: number('top_k', 0, 2 ** 31, true),
    minP: number('min_p', 0, 1),
    seed: number('seed', -(2 ** 53) + 1, 2 ** 53 - 1, true),
    stop: stopOf(fields.stop),
  }
  if (options.stop === null) bad('stop', 'a string, or up to 16 strings, none of them empty')
  const prompt = kind === 'chat' ? messagesOf(fields.messages) : textOf(fields.prompt)
  if (!prompt)
    bad(
      kind === 'chat' ? 'messages' : 'prompt',
      kind === 'chat' ? 'a list of { role, content } with text content, at least one' : 'a string',
    )
  if (problems.length > 0 || !prompt) throw new ModelError(problems)
  const given = Object.entries(options).filter(([, value]) => value !== undefined)
  const { stream, stream_options: streamOptions } = fields
  return {
    prompt,
    options: Object.fromEntries(given),
    stream: stream === true,
    includeUsage: (streamOptions as { include_usage?: unknown } | undefined)?.include_usage === true,
  }
}

function textOf(value: unknown): Prompt | undefined {
  const text = Array.isArray(value) && value.length === 1 ? value[0] : value
  return typeof text === 'string' ? { text } : undefined
}

function messagesOf(value: unknown): Prompt | undefined {
  if (!Array.isArray(value) || value.length === 0) return undefined
  const messages = value.map(messageOf)
  return messages.every((message) => message !== undefined) ? { messages } : undefined
}

function messageOf(value: unknown): ChatMessage | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const { role, content } = value as Fields
  const text = Array.isArray(content) ? partsOf(content) : content
  return typeof role === 'string' && typeof text === 'string' ? { role, content: text } : undefined
}

/** Content as a list of parts: text only. */
function partsOf(parts: readonly unknown[]): string | undefined {
  const texts = parts.map((part) => {
    const { type, text } = (part ?? {}) as Fields
    return type === 'text' && typeof text === 'string' ? text : undefined
  })
  return texts.every((text) => text !== undefined) ? texts.join('') : undefined
}

/** `null` when it is not usable. */
function stopOf(value: unknown): readonly string[] | undefined | null {
  if (value === undefined || value === null) return undefined
  const stops = Array.isArray(value) ? value : [value]
  const fits = stops.length <= 16 && stops.every((stop) => typeof stop === 'string' && stop !== '')
  return fits ? stops : null
}

function shorten(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing'
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}
