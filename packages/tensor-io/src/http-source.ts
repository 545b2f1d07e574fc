import { type ByteSource, ModelError } from '@polygraft/tensor'
import { fetchRange, type HttpOptions, type Part, withoutQuery } from './_http.js'
import { HEAD_BYTES } from './parse-safetensors.js'

/** A remote file as it was when it was opened. */
interface Remote {
  readonly url: string
  readonly options: HttpOptions
  /** Its first bytes came with its size: most headers and small files need no second request. */
  readonly head: Part
}

/**
 * A file behind a URL, read by range requests. The first 256 KiB come with the size in one request, and are kept.
 * @throws ModelError "missing-file", "no-ranges" when the server ignores ranges, "http-status", "network" (after three
 *   attempts), "bad-response"; a read also throws "changed" when size or ETag are not what they were.
 */
export async function httpSource(url: string, options: HttpOptions = {}): Promise<ByteSource> {
  const found = await findHttpSource(url, options)
  if (found) return found.source
  throw new ModelError({
    code: 'missing-file',
    message: 'There is nothing at this URL',
    file: withoutQuery(url),
  })
}

/** `httpSource` with the ETag; undefined when nothing is there. @param headBytes How much to fetch with the size. */
export async function findHttpSource(
  url: string,
  options: HttpOptions,
  headBytes = HEAD_BYTES,
): Promise<{ source: ByteSource; etag: string | undefined } | undefined> {
  const head = await fetchRange(url, 0, headBytes, options)
  if (!head) return undefined
  const source = slice({ url, options, head }, 0, head.size)
  return { source: head.etag === undefined ? source : { ...source, state: describe(head) }, etag: head.etag }
}

function slice(remote: Remote, begin: number, end: number): ByteSource {
  const size = end - begin
  const within = (offset: number) => begin + Math.min(Math.max(offset, 0), size)
  return {
    size,
    slice: (from, to) => slice(remote, within(from), Math.max(within(from), within(to))),
    arrayBuffer: () => read(remote, begin, end),
  }
}

async function read({ url, options, head }: Remote, begin: number, end: number): Promise<ArrayBuffer> {
  if (end <= head.bytes.length || begin === end) return head.bytes.slice(begin, end).buffer
  const part = await fetchRange(url, begin, end, options)
  if (part?.size === head.size && part.etag === head.etag) return part.bytes.buffer
  throw new ModelError({
    code: 'changed',
    message: 'The file behind a URL changed while it was in use',
    file: withoutQuery(url),
    expected: describe(head),
    received: part ? describe(part) : 'nothing',
  })
}

function describe({ size, etag }: Part): string {
  return `${size} bytes${etag === undefined ? '' : `, ETag ${etag}`}`
}
