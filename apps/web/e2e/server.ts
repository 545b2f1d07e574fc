import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A file whose first bytes are `head`, and all others zero. */
export interface RemoteFile {
  readonly size: number
  readonly head: Buffer
}

export interface Remote {
  readonly url: string
  /** Bytes of bodies sent so far, and requests answered. */
  readonly sent: { bytes: number; requests: number }
  close(): Promise<void>
}

/**
 * A web server of files by ranges. @param cors Whether pages of other origins may read them. @param ranges Whether it knows
 * ranges; otherwise it sends whole files.
 */
export async function serve(
  files: ReadonlyMap<string, RemoteFile>,
  cors = true,
  ranges = true,
): Promise<Remote> {
  const sent = { bytes: 0, requests: 0 }
  const server = createServer((request, response) => {
    sent.requests++
    answer(request, response, files, { cors, ranges }, (bytes) => {
      sent.bytes += bytes
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    sent,
    async close() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

function answer(
  request: IncomingMessage,
  response: ServerResponse,
  files: ReadonlyMap<string, RemoteFile>,
  { cors, ranges }: { cors: boolean; ranges: boolean },
  onBytes: (bytes: number) => void,
): void {
  if (cors) {
    response.setHeader('access-control-allow-origin', '*')
    response.setHeader('access-control-allow-headers', '*')
    response.setHeader('access-control-expose-headers', 'content-range, etag')
  }
  const file = files.get((request.url ?? '').slice(1))
  if (request.method === 'OPTIONS') return void response.writeHead(cors ? 204 : 403).end()
  if (!file) return void response.writeHead(404).end()
  const [, first, last] =
    /bytes=(\d+)-(\d+)/.exec((ranges && request.headers.range) || `bytes=0-${file.size - 1}`) ?? []
  const begin = Number(first)
  const end = Math.min(file.size, Number(last) + 1)
  const body = Buffer.alloc(end - begin)
  file.head.copy(body, 0, Math.min(begin, file.head.length), Math.min(end, file.head.length))
  onBytes(body.length)
  if (!ranges) return void response.writeHead(200, { 'content-length': body.length }).end(body)
  response
    .writeHead(206, { 'content-range': `bytes ${begin}-${end - 1}/${file.size}`, etag: '"1"' })
    .end(body)
}
