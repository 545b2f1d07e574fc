import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { formatProblem, ModelError } from '@polygraft/tensor'
import type { AnswerEnd, Answerer } from './answerer.js'
import { type CompletionRequest, parseRequest } from './parse-request.js'

/** Largest body that is read. A conversation that fills a context of a million tokens is smaller. */
const MAX_BODY_BYTES = 16 * 2 ** 20
/** Requests that may wait for the one that is being answered. */
const MAX_WAITING = 64

type Kind = 'chat' | 'text'

const ROUTES: Readonly<Record<string, Kind>> = { '/v1/chat/completions': 'chat', '/v1/completions': 'text' }

/**
 * The part of the OpenAI protocol that chat clients use: GET /v1/models, POST /v1/chat/completions and /v1/completions, with and without
 * streaming. One answer is made at a time; others wait in the order of their arrival. A client that hangs up ends its answer.
 */
export function createChatServer(answerer: Answerer): Server {
  const inTurn = createQueue()
  const server = createServer((request, response) => {
    handle(request, response, answerer, inTurn).catch((error) => sendError(response, error))
  })
  server.requestTimeout = 60_000
  return server
}

async function handle(
  request: IncomingMessage,
  response: ServerResponse,
  answerer: Answerer,
  inTurn: Queue,
): Promise<void> {
  const { pathname } = new URL(request.url ?? '/', 'http://localhost')
  const kind = ROUTES[pathname]
  if (request.method === 'GET' && (pathname === '/v1/models' || pathname === `/v1/models/${answerer.id}`))
    return sendModels(response, answerer, pathname === '/v1/models')
  if (request.method === 'GET' && pathname === '/health') return sendJson(response, 200, { status: 'ok' })
  if (!kind) throw new HttpProblem(404, 'not-found', `There is no ${pathname}`)
  if (request.method !== 'POST') throw new HttpProblem(405, 'method-not-allowed', 'POST is expected here')
  const completion = parseRequest(await readJson(request), kind)
  const gone = new AbortController()
  response.once('close', () => gone.abort(new Error('The client has hung up')))
  await inTurn(async () => {
    if (gone.signal.aborted) return
    const sender = completion.stream ? sendStream : sendWhole
    await sender(response, completion, kind, answerer, gone.signal)
  })
}

async function sendWhole(
  response: ServerResponse,
  completion: CompletionRequest,
  kind: Kind,
  answerer: Answerer,
  signal: AbortSignal,
): Promise<void> {
  const pieces = answerer.answer(completion.prompt, completion.options, signal)
  let text = ''
  let step = await pieces.next()
  for (; !step.done; step = await pieces.next()) text += step.value
  const { finishReason } = step.value
  const content = kind === 'chat' ? { message: { role: 'assistant', content: text } } : { text }
  sendJson(response, 200, {
    ...headOf(kind, answerer, false),
    choices: [{ index: 0, ...content, logprobs: null, finish_reason: finishReason }],
    usage: usageOf(step.value),
  })
}

/** Server-sent events. An error after the first piece can only be told in the stream. */
async function sendStream(
  response: ServerResponse,
  completion: CompletionRequest,
  kind: Kind,
  answerer: Answerer,
  signal: AbortSignal,
): Promise<void> {
  const pieces = answerer.answer(completion.prompt, completion.options, signal)
  const head = headOf(kind, answerer, true)
  const contentOf = (text: string) => (kind === 'chat' ? { delta: { content: text } } : { text })
  const write = (choices: readonly object[], more: object = {}) =>
    writeEvent(response, JSON.stringify({ ...head, choices, ...more }), signal)
  let step = await pieces.next()
  response.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache',
    connection: 'keep-alive',
  })
  try {
    if (kind === 'chat')
      await write([{ index: 0, delta: { role: 'assistant', content: '' }, finish_reason: null }])
    for (; !step.done; step = await pieces.next())
      await write([{ index: 0, ...contentOf(step.value), finish_reason: null }])
    const end = kind === 'chat' ? { delta: {} } : { text: '' }
    await write([{ index: 0, ...end, finish_reason: step.value.finishReason }])
    if (completion.includeUsage) await write([], { usage: usageOf(step.value) })
    await writeEvent(response, '[DONE]', signal)
  } catch (error) {
    if (signal.aborted) return
    await writeEvent(response, JSON.stringify(errorBody(error).body), signal)
  }
  response.end()
}

/** Waits for a slow reader, so that nothing piles up in memory. */
async function writeEvent(response: ServerResponse, data: string, signal: AbortSignal): Promise<void> {
  if (response.write(`data: ${data}\n\n`)) return
  await new Promise<void>((resolve) => {
    response.once('drain', resolve)
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
  signal.throwIfAborted()
}

function headOf(kind: Kind, { id }: Answerer, isChunk: boolean) {
  const object = kind === 'text' ? 'text_completion' : isChunk ? 'chat.completion.chunk' : 'chat.completion'
  const created = Math.floor(Date.now() / 1000)
  return { id: `${kind === 'chat' ? 'chatcmpl' : 'cmpl'}-${randomUUID()}`, object, created, model: id }
}

function usageOf({ promptTokens, newTokens }: AnswerEnd) {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: newTokens,
    total_tokens: promptTokens + newTokens,
  }
}

function sendModels(response: ServerResponse, { id }: Answerer, isList: boolean): void {
  const model = { id, object: 'model', created: 0, owned_by: 'local' }
  sendJson(response, 200, isList ? { object: 'list', data: [model] } : model)
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = []
  let size = 0
  for await (const part of request) {
    size += part.length
    if (size > MAX_BODY_BYTES)
      throw new HttpProblem(413, 'too-large', `The body is larger than ${MAX_BODY_BYTES} bytes`)
    parts.push(part)
  }
  try {
    return JSON.parse(Buffer.concat(parts).toString('utf8'))
  } catch (error) {
    throw new ModelError({
      code: 'bad-request',
      message: `The body is not JSON: ${(error as Error).message}`,
    })
  }
}

type Queue = (work: () => Promise<void>) => Promise<void>

/** Runs one piece of work at a time, in the order of the calls. */
function createQueue(): Queue {
  let last: Promise<unknown> = Promise.resolve()
  let waiting = 0
  return async (work) => {
    if (waiting >= MAX_WAITING) throw new HttpProblem(503, 'busy', 'Too many requests are waiting')
    waiting++
    const mine = last.then(work).finally(() => waiting--)
    last = mine.catch(() => {})
    await mine
  }
}

/** A refusal that has a status of its own. */
class HttpProblem extends ModelError {
  constructor(
    readonly status: number,
    code: string,
    message: string,
  ) {
    super({ code, message })
  }
}

function errorBody(error: unknown): { readonly status: number; readonly body: object } {
  const known = error instanceof ModelError
  const status = error instanceof HttpProblem ? error.status : known ? 400 : 500
  const message = known ? error.problems.map(formatProblem).join('\n') : 'The answer could not be made'
  const type = status < 500 ? 'invalid_request_error' : 'server_error'
  return { status, body: { error: { message, type, param: null, code: known ? error.code : 'failed' } } }
}

function sendError(response: ServerResponse, error: unknown): void {
  const { status, body } = errorBody(error)
  if (response.headersSent || response.destroyed) {
    response.end()
    return
  }
  // What is left of the body is not read: an upload of any size ends here.
  if (status === 413) response.setHeader('connection', 'close')
  sendJson(response, status, body)
}

function sendJson(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8' })
  response.end(JSON.stringify(body))
}
