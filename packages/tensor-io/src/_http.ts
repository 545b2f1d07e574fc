import { ModelError } from '@polygraft/tensor'

/** How a URL is asked for. */
export interface HttpOptions {
  /** Sent with every request: `{ authorization: 'Bearer …' }`. */
  readonly headers?: Readonly<Record<string, string>>
  /** Ends every request, those of later reads included. */
  readonly signal?: AbortSignal
}

/** One answer to a range request. */
export interface Part {
  /** The bytes from `begin` on: as many as asked for, or fewer at the file's end. */
  readonly bytes: Uint8Array<ArrayBuffer>
  /** Of the whole file. Unit: bytes. */
  readonly size: number
  readonly etag: string | undefined
}

const ATTEMPTS = 3
const FIRST_PAUSE_MS = 250
const PASSING_STATUS = new Set([408, 425, 429, 500, 502, 503, 504])

/** A URL for people: a query may hold a signature. */
export function withoutQuery(url: string): string {
  const { origin, pathname } = new URL(url)
  return origin + pathname
}

/**
 * Bytes [begin, end) of a URL, or what there is of them; undefined when nothing is there (404, 410). Asks again when the
 * network or the server fails in a way that may pass.
 */
export async function fetchRange(
  url: string,
  begin: number,
  end: number,
  options: HttpOptions,
): Promise<Part | undefined> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await fetchOnce(url, begin, end, options)
    } catch (error) {
      options.signal?.throwIfAborted()
      if (!(error instanceof ModelError && error.code === 'network') || attempt === ATTEMPTS) throw error
      await new Promise((resolve) => setTimeout(resolve, FIRST_PAUSE_MS * 4 ** (attempt - 1)))
    }
  }
}

async function fetchOnce(
  url: string,
  begin: number,
  end: number,
  options: HttpOptions,
): Promise<Part | undefined> {
  const response = await send(url, begin, end, options)
  try {
    return await readPart(response, url, begin, end)
  } finally {
    // What was not read is not wanted; a body that was read, or broke, has nothing left to cancel.
    await response.body?.cancel().catch(() => undefined)
  }
}

async function send(
  url: string,
  begin: number,
  end: number,
  { headers, signal }: HttpOptions,
): Promise<Response> {
  // A compressed answer would count other bytes than the file's.
  const asked = { ...headers, range: `bytes=${begin}-${end - 1}`, 'accept-encoding': 'identity' }
  try {
    return await fetch(url, { headers: asked, ...(signal ? { signal } : {}) })
  } catch (cause) {
    throw httpError('network', 'The server cannot be reached', url, messageOf(cause), cause)
  }
}

async function readPart(
  response: Response,
  url: string,
  begin: number,
  end: number,
): Promise<Part | undefined> {
  const { status, headers } = response
  const etag = headers.get('etag') ?? undefined
  if (status === 404 || status === 410) return undefined
  if (status === 206) {
    const { first, last, size } = parseContentRange(headers.get('content-range'), url)
    if (first !== begin || last !== Math.min(end, size) - 1)
      throw httpError('bad-response', 'The server sent another range than asked for', url, `${first}-${last}`)
    return { bytes: await readBody(response, last + 1 - first, url), size, etag }
  }
  // An empty file has no range at all.
  if (status === 416 && begin === 0 && headers.get('content-range') === 'bytes */0')
    return { bytes: new Uint8Array(), size: 0, etag }
  if (status === 200) return { ...(await readWhole(response, begin, end, url)), etag }
  const code = PASSING_STATUS.has(status) ? 'network' : 'http-status'
  throw httpError(
    code,
    'The server refused',
    url,
    `status ${status} ${response.statusText}`.trimEnd(),
    undefined,
    nextOf(status),
  )
}

/** Status 200 ignores the range. That is as good where the whole file fits into what was asked for. */
async function readWhole(response: Response, begin: number, end: number, url: string) {
  const length = response.headers.get('content-length')
  const size = length === null ? Number.NaN : Number(length)
  if (begin !== 0 || !(size <= end))
    throw httpError(
      'no-ranges',
      'The server cannot send a part of a file',
      url,
      'status 200, the whole file',
      undefined,
      'Download the checkpoint and open it from the disk.',
    )
  return { bytes: await readBody(response, size, url), size }
}

/** Exactly `length` bytes, never holding more, however much the server sends. */
async function readBody(response: Response, length: number, url: string): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length)
  let at = 0
  const reader = response.body?.getReader()
  try {
    for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
      if (at + part.value.length > length)
        throw httpError('bad-response', 'The server sent more than it said', url, `over ${length} bytes`)
      bytes.set(part.value, at)
      at += part.value.length
    }
  } catch (cause) {
    if (cause instanceof ModelError) throw cause
    throw httpError('network', 'The connection broke', url, messageOf(cause), cause)
  } finally {
    reader?.releaseLock()
  }
  if (at < length) throw httpError('network', 'The answer ended early', url, `${at} of ${length} bytes`)
  return bytes
}

function parseContentRange(header: string | null, url: string) {
  const match = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(header ?? '')
  const [first, last, size] = (match ?? []).slice(1).map(Number)
  if (first === undefined || last === undefined || size === undefined || !Number.isSafeInteger(size))
    throw httpError(
      'bad-response',
      'The server does not say which range it sent',
      url,
      `content-range: ${header}`,
    )
  return { first, last, size }
}

function nextOf(status: number): string | undefined {
  if (status === 401 || status === 403)
    return 'Is this model gated? Accept its terms and send an authorization header.'
  return undefined
}

function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message
}

function httpError(
  code: string,
  message: string,
  url: string,
  received: string,
  cause?: unknown,
  next?: string,
): ModelError {
  const problem = {
    code,
    message,
    file: withoutQuery(url),
    received,
    ...(next === undefined ? {} : { next }),
  }
  return new ModelError(problem, { cause })
}
