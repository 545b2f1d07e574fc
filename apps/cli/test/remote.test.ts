import { createReadStream, existsSync, statSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { BASE, CPT, createTemp, INSTRUCT, runJson, succeed, type Temp, TRIO, tensorsOf } from './support.js'

let server: Server
let endpoint = ''
let temp: Temp
const seen: { url: string; authorization: string | undefined }[] = []

beforeAll(async () => {
  temp = await createTemp()
  server = createServer(serve)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterAll(async () => {
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
})

/** `/trio/<name>/resolve/<revision>/<file>` as the Hub serves it; `/whole/...` without ranges; `/gated/...` with a token. */
function serve(request: IncomingMessage, response: ServerResponse): void {
  const url = request.url ?? ''
  seen.push({ url, authorization: request.headers.authorization })
  const [, kind, name, , , ...rest] = url.split('/')
  const path = join(TRIO, name ?? '', rest.join('/'))
  if (kind === 'gated' && request.headers.authorization !== 'Bearer secret')
    return void response.writeHead(401).end()
  if (rest.join('/') === '' || !existsSync(path)) return void response.writeHead(404).end()
  const { size } = statSync(path)
  const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')
  if (!range || kind === 'whole') {
    response.writeHead(200, { 'content-length': size })
    return void createReadStream(path).pipe(response)
  }
  const [start, end] = [Number(range[1]), Math.min(Number(range[2]), size - 1)]
  const headers = {
    'content-range': `bytes ${start}-${end}/${size}`,
    'content-length': end - start + 1,
    etag: '"1"',
  }
  response.writeHead(206, headers)
  createReadStream(path, { start, end }).pipe(response)
}

const env = () => ({ HF_ENDPOINT: endpoint, HF_TOKEN: '' })

it('inspects a model on the Hub by its headers', async () => {
  const { family, parameters, groups } = await succeed(['inspect', 'hf:trio/base'], { env: env() })
  const local = await succeed(['inspect', BASE])
  expect({ family, parameters, groups }).toEqual({
    family: 'llama',
    parameters: local.parameters,
    groups: local.groups,
  })
})

it('asks for the revision, and opens URLs', async () => {
  await succeed(['inspect', 'hf:trio/base@v1.0'], { env: env() })
  expect(seen.some(({ url }) => url === '/trio/base/resolve/v1.0/config.json')).toBe(true)
  const { parameters } = await succeed(['inspect', `${endpoint}/trio/cpt/resolve/main`])
  expect(parameters).toBe(509248)
  const single = await succeed(['inspect', `${endpoint}/trio/instruct/resolve/main/model.safetensors`])
  expect(single.family).toBe('llama')
})

it('grafts and verifies from afar to the same tensors', async () => {
  const remote = ['--base', 'hf:trio/base', '--post', 'hf:trio/instruct']
  await Promise.all([
    succeed(['graft', 'hf:trio/cpt', '-o', temp.at('remote'), ...remote], { env: env() }),
    succeed(['graft', CPT, '-o', temp.at('local'), '--base', BASE, '--post', INSTRUCT]),
  ])
  expect(await tensorsOf(temp.at('remote'))).toEqual(await tensorsOf(temp.at('local')))
  const json = await succeed(['verify', temp.at('remote'), ...remote, '--cpt', 'hf:trio/cpt'], { env: env() })
  expect(json.ok).toBe(true)
})

it('shows the token to the Hub, and to nobody else', async () => {
  const token = { HF_ENDPOINT: endpoint, HF_TOKEN: 'secret' }
  seen.length = 0
  await succeed(['inspect', 'hf:gated/base'], { env: token })
  expect(seen.every(({ authorization }) => authorization === 'Bearer secret')).toBe(true)
  seen.length = 0
  await succeed(['inspect', `${endpoint}/trio/base/resolve/main`], { env: token })
  expect(seen.every(({ authorization }) => authorization === undefined)).toBe(true)
})

it.each<[string, () => string, object]>([
  ['no such model', () => 'hf:trio/nothing', { code: 'no-weights', next: expect.stringMatching('name') }],
  ['no such file', () => `${endpoint}/trio/base/resolve/main/x.safetensors`, { code: 'missing-file' }],
  [
    'a gated model',
    () => 'hf:gated/base',
    { code: 'http-status', received: 'status 401 Unauthorized', next: expect.stringMatching(/HF_TOKEN/) },
  ],
  [
    'a server without ranges',
    () => `${endpoint}/whole/base/resolve/main`,
    { code: 'no-ranges', next: expect.stringMatching('Download') },
  ],
  ['no name', () => 'hf:base', { code: 'bad-location', expected: expect.stringMatching('hf:org/name') }],
])('%s', async (_, location, problem) => {
  const { code, json } = await runJson(['inspect', location()], { env: env() })
  expect(code).toBe(1)
  expect(json.error.problems[0]).toMatchObject(problem)
})
