import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { DType } from '@polygraft/tensor'
import { httpSource, openUrl, readText } from '@polygraft/tensor-io'
import { afterEach, describe, expect, it } from 'vitest'
import { failure, fileOf, folderOf, pattern } from '../test/support.js'

type Handler = (request: IncomingMessage, response: ServerResponse) => void
const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

async function serve(handler: Handler): Promise<{ url: string; requests: string[] }> {
  const requests: string[] = []
  const server = createServer((request, response) => {
    requests.push(`${request.url} ${request.headers.range?.replace('bytes=', '') ?? 'whole'}`)
    handler(request, response)
  })
  server.listen(0, '127.0.0.1')
  server.unref()
  closing.push(() => {
    server.close()
    server.closeAllConnections()
  })
  await once(server, 'listening')
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests }
}

/** A server of ranges as RFC 9110 describes it. */
function files(all: ReadonlyMap<string, Uint8Array>, etag = () => '"1"'): Handler {
  return (request, response) => {
    const path = new URL(request.url!, 'http://x').pathname
    const bytes = all.get(decodeURIComponent(path.slice(1)))
    if (!bytes) return void response.writeHead(404).end('no such file')
    const [begin = 0, last = 0] =
      /bytes=(\d+)-(\d+)/
        .exec(request.headers.range ?? '')
        ?.slice(1)
        .map(Number) ?? []
    if (begin >= bytes.length)
      return void response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end()
    const part = bytes.subarray(begin, last + 1)
    const range = `bytes ${begin}-${begin + part.length - 1}/${bytes.length}`
    response.writeHead(206, { 'content-range': range, etag: etag(), 'content-length': part.length }).end(part)
  }
}

const one = (bytes: Uint8Array) => files(new Map([['f', bytes]]))
const f32 = (n: number) => ({ dtype: 'F32' as DType, shape: [n] })

describe('httpSource', () => {
  it('reads ranges, the beginning without another request', async () => {
    const bytes = pattern(300_000)
    const { url, requests } = await serve(one(bytes))
    const source = await httpSource(`${url}/f?signature=s`)
    expect(source.size).toBe(300_000)
    const read = async (begin: number, end: number) =>
      new Uint8Array(await source.slice(begin, end).arrayBuffer())
    expect(await read(10, 200_000)).toEqual(bytes.subarray(10, 200_000))
    expect(requests).toEqual(['/f?signature=s 0-262143'])
    expect(await read(262_140, 262_150)).toEqual(bytes.subarray(262_140, 262_150))
    expect(await read(299_990, 400_000)).toEqual(bytes.subarray(299_990))
    expect(new Uint8Array(await source.slice(5, 290_000).slice(289_990, 300_000).arrayBuffer())).toEqual(
      bytes.subarray(289_995, 290_000),
    )
    expect(requests.slice(1)).toEqual([
      '/f?signature=s 262140-262149',
      '/f?signature=s 299990-299999',
      '/f?signature=s 289995-289999',
    ])
    expect(await read(300_000, 300_001)).toHaveLength(0)
  })

  it('reads an empty file, and a small one from a server without ranges', async () => {
    expect((await httpSource(`${(await serve(one(new Uint8Array()))).url}/f`)).size).toBe(0)
    const { url } = await serve((_, response) => response.writeHead(200, { 'content-length': 2 }).end('hi'))
    expect(await readText(await httpSource(url))).toBe('hi')
  })

  it('sends headers, and stops at a signal', async () => {
    const { url } = await serve((request, response) =>
      one(pattern(Number(request.headers['x-size'])))(request, response),
    )
    const controller = new AbortController()
    const source = await httpSource(`${url}/f`, {
      headers: { 'x-size': '300000' },
      signal: controller.signal,
    })
    expect(source.size).toBe(300_000)
    controller.abort(new Error('enough'))
    await expect(source.slice(270_000, 280_000).arrayBuffer()).rejects.toThrow('enough')
  })

  it('tries again what may pass', async () => {
    let count = 0
    const good = one(pattern(10))
    const { url } = await serve((request, response) => {
      count++
      if (count === 1) response.writeHead(503).end()
      else if (count === 2) response.destroy()
      else good(request, response)
    })
    expect((await httpSource(`${url}/f`)).size).toBe(10)
    expect(count).toBe(3)
  })

  const range = (text: string) => ({ 'content-range': text })
  it.each<[string, Handler, string]>([
    ['nothing there', (_, r) => r.writeHead(404).end(), 'missing-file'],
    ['a gated file', (_, r) => r.writeHead(401).end('no'), 'http-status'],
    [
      'a whole large file',
      (_, r) => r.writeHead(200, { 'content-length': 300_000 }).end(pattern(300_000)),
      'no-ranges',
    ],
    ['a whole file of unknown size', (_, r) => void r.writeHead(200).end('x'.repeat(9)), 'no-ranges'],
    ['no content-range', (_, r) => r.writeHead(206).end('x'), 'bad-response'],
    [
      'a content-range without a size',
      (_, r) => r.writeHead(206, range('bytes 0-0/*')).end('x'),
      'bad-response',
    ],
    ['another range', (_, r) => r.writeHead(206, range('bytes 1-2/9')).end('xx'), 'bad-response'],
    ['more than it says', (_, r) => r.writeHead(206, range('bytes 0-3/4')).end('too much'), 'bad-response'],
    ['less than it says', (_, r) => r.writeHead(206, range('bytes 0-3/4')).end('x'), 'network'],
    ['an error that stays', (_, r) => r.writeHead(500).end(), 'network'],
  ])('refuses %s', async (_, handler, code) => {
    const { url } = await serve((request, response) => {
      // A body without a length is sent in chunks, so that its end is no error of the protocol.
      response.useChunkedEncodingByDefault = true
      handler(request, response)
    })
    const error = await failure(() => httpSource(`${url}/f?signature=secret`))
    expect(error.code).toBe(code)
    expect(error.file).toBe(`${url}/f`)
    expect(error.message).not.toContain('secret')
  })

  it('reports a server that is not there', async () => {
    const { url } = await serve(() => {})
    closing.splice(0).forEach((close) => {
      close()
    })
    expect((await failure(() => httpSource(url))).code).toBe('network')
  })

  it('notices a file that changed, shrank or went', async () => {
    for (const change of ['etag', 'size', 'gone'] as const) {
      let all = new Map([['f', pattern(300_000)]])
      let etag = '"1"'
      const { url } = await serve((request, response) => files(all, () => etag)(request, response))
      const source = await httpSource(`${url}/f`)
      if (change === 'etag') etag = '"2"'
      else all = change === 'size' ? new Map([['f', pattern(299_000)]]) : new Map()
      expect((await failure(() => source.slice(270_000, 280_000).arrayBuffer())).code).toBe('changed')
    }
  })
})

describe('openUrl', () => {
  const model = [
    ['a', f32(100)],
    ['b', f32(100_000)],
    ['c', f32(10)],
  ] as const
  const extra = { 'config.json': '{"model_type":"llama"}', 'tokenizer.json': '{}', 'unlisted.txt': '' }
  const folder = (maxShardBytes?: number) =>
    new Map([...folderOf(model, maxShardBytes, extra)].map(([name, bytes]) => [`org/m/${name}`, bytes]))

  it('opens a folder with one request for each file, and no tensor data', async () => {
    const all = folder(1000)
    const { url, requests } = await serve(files(all))
    for (const slash of ['', '/']) {
      requests.splice(0)
      const checkpoint = await openUrl(`${url}/org/m${slash}?token=t`)
      expect([...checkpoint.tensors.keys()].sort()).toEqual(['a', 'b', 'c'])
      expect(checkpoint.config).toEqual({ model_type: 'llama' })
      expect([...checkpoint.files.keys()]).toEqual(['tokenizer.json'])
      const [source] = [...checkpoint.sources.values()]
      expect(source?.location).toBe(`${url}/org/m${slash}`)
      const shards = requests.filter((request) => request.includes('model-0000'))
      expect(shards).toHaveLength(2)
      expect(new Set(requests).size).toBe(requests.length)
      for (const request of requests) expect(request).toContain('?token=t 0-')
    }
  })

  it('opens a folder of one file, and a file by itself', async () => {
    const { url, requests } = await serve(files(folder()))
    const whole = await openUrl(`${url}/org/m`)
    expect(whole.tensors.size).toBe(3)
    requests.splice(0)
    const single = await openUrl(`${url}/org/m/model.safetensors`)
    expect(single.tensors.size).toBe(3)
    expect(single.config).toEqual({ model_type: 'llama' })
    expect(requests.sort()).toEqual(['/org/m/config.json 0-262143', '/org/m/model.safetensors 0-262143'])
    const [read] = [...single.sources.values()]
    const { file, begin, end } = read!.tensors.get('b')!
    const bytes = await read!.shards.get(file)!.slice(begin, end).arrayBuffer()
    expect(new Uint8Array(bytes)).toEqual(pattern(400_000))
  })

  it('tells models of one shape and versions of one place apart', async () => {
    const shared = new Map([
      ['base/model.safetensors', fileOf(model)],
      ['post/model.safetensors', fileOf(model)],
    ])
    let etag = '"1"'
    const { url } = await serve((request, response) => files(shared, () => etag)(request, response))
    const idOf = async (name: string) => [...(await openUrl(`${url}/${name}`)).sources.keys()][0]
    const base = await idOf('base')
    expect(base).toMatch(/^header-sha256:/)
    expect(await idOf('base')).toBe(base)
    expect(await idOf('post')).not.toBe(base)
    etag = '"2"'
    expect(await idOf('base')).not.toBe(base)
  })

  it.each([
    ['no address', () => 'org/name', 'bad-url'],
    ['a file address', () => 'file:///etc/passwd', 'bad-url'],
    ['an empty place', (url: string) => `${url}/nothing`, 'no-weights'],
    ['a missing file', (url: string) => `${url}/nothing/x.safetensors`, 'missing-file'],
    ['an index that leaves its folder', (url: string) => `${url}/evil`, 'path-escape'],
    ['an index with a missing shard', (url: string) => `${url}/half`, 'missing-shard'],
  ])('refuses %s', async (_, urlOf, code) => {
    const index = (file: string) => new TextEncoder().encode(`{"weight_map":{"a":"${file}"}}`)
    const all = new Map([
      ['evil/model.safetensors.index.json', index('../../secret.safetensors')],
      ['half/model.safetensors.index.json', index('x.safetensors')],
    ])
    const { url, requests } = await serve(files(all))
    expect((await failure(() => openUrl(urlOf(url)))).code).toBe(code)
    expect(requests.filter((request) => request.includes('secret'))).toEqual([])
  })
})
