import { once } from 'node:events'
import { connect } from 'node:net'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { INSTRUCT, start } from './support.js'

const MESSAGES = [{ role: 'user' as const, content: 'kona : rina dima' }]

let server: ReturnType<typeof start>
let client: OpenAI
let url: string
beforeAll(async () => {
  server = start(['serve', INSTRUCT, '--port', '0', '--json'])
  const [line] = await once(server.stdout!, 'data')
  url = JSON.parse(line).url
  client = new OpenAI({ baseURL: url, apiKey: 'none', maxRetries: 0 })
})
afterAll(async () => {
  server.kill('SIGINT')
  expect((await server.ended).code).toBe(0)
})

const request = { model: 'instruct', messages: MESSAGES, temperature: 0 }

describe('serve', () => {
  it('answers the openai client, whole and as a stream', async () => {
    const models = await client.models.list()
    expect(models.data.map(({ id }) => id)).toEqual(['instruct'])
    const whole = await client.chat.completions.create(request)
    expect(whole.choices[0]).toMatchObject({ message: { content: 'rina dima' }, finish_reason: 'stop' })
    expect(whole.usage).toEqual({ prompt_tokens: 7, completion_tokens: 3, total_tokens: 10 })
    const stream = await client.chat.completions.create({ ...request, stream: true })
    const pieces: string[] = []
    for await (const { choices } of stream) pieces.push(choices[0]?.delta.content ?? '')
    expect(pieces.filter((piece) => piece !== '')).toEqual(['rina', ' dima'])
  })

  it('ends a text where the client says', async () => {
    const options = { model: 'instruct', prompt: 'zumi', max_tokens: 5, temperature: 1, seed: 3 }
    const { choices, usage } = await client.completions.create(options)
    expect(choices[0]!.finish_reason).toMatch(/stop|length/)
    expect(usage!.completion_tokens).toBeLessThanOrEqual(5)
    const again = await client.completions.create(options)
    expect(again.choices[0]!.text).toBe(choices[0]!.text)
  })

  it('refuses what it cannot do, and lives on', async () => {
    const bad = client.chat.completions.create({ ...request, temperature: -1 })
    await expect(bad).rejects.toMatchObject({ status: 400, code: 'bad-request' })
    const post = (body: string) => fetch(`${url}/chat/completions`, { method: 'POST', body })
    expect((await post('{')).status).toBe(400)
    expect((await fetch(`${url}/nothing`)).status).toBe(404)
    expect((await fetch(`${url}/chat/completions`)).status).toBe(405)
    expect((await client.chat.completions.create(request)).choices).toHaveLength(1)
  })

  it('refuses a conversation beyond the context, whole or as a stream', async () => {
    const messages = [{ role: 'user' as const, content: Array(300).fill('kona').join(' ') }]
    for (const stream of [false, true]) {
      const asked = client.chat.completions.create({ ...request, messages, stream })
      await expect(asked).rejects.toMatchObject({ status: 400, code: 'too-long' })
    }
    expect((await client.chat.completions.create(request)).choices[0]!.message.content).toBe('rina dima')
  })

  it('outlives many who hang up, before and in the middle of their answers', async () => {
    const options = { model: 'instruct', prompt: 'zumi', max_tokens: 200, temperature: 1 }
    const leave = async (afterMs: number) => {
      const abort = new AbortController()
      setTimeout(() => abort.abort(), afterMs)
      await client.completions.create(options, { signal: abort.signal }).catch(() => {})
    }
    await Promise.all(Array.from({ length: 12 }, (_, i) => leave(i * 3)))
    for (let i = 0; i < 6; i++) {
      const abort = new AbortController()
      const stream = await client.completions.create({ ...options, stream: true }, { signal: abort.signal })
      for await (const _ of stream) abort.abort()
    }
    expect((await client.chat.completions.create(request)).choices[0]!.message.content).toBe('rina dima')
  })

  it('does not read a body beyond its limit, and forgets who hangs up', async () => {
    const port = Number(new URL(url).port)
    const socket = connect(port, '127.0.0.1').on('error', () => {})
    let received = ''
    socket.setEncoding('utf8').on('data', (text: string) => {
      received += text
    })
    socket.write(`POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: ${2 ** 27}\r\n\r\n`)
    const piece = Buffer.alloc(2 ** 20, 32)
    for (let i = 0; i < 20 && received === ''; i++) {
      socket.write(piece)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    if (!socket.closed) await once(socket, 'close')
    expect(received).toContain(' 413 ')
    const abort = new AbortController()
    const options = { model: 'instruct', prompt: 'zumi', max_tokens: 200, stream: true as const }
    const stream = await client.completions.create(options, { signal: abort.signal })
    for await (const _ of stream) abort.abort()
    expect((await client.chat.completions.create(request)).choices[0]!.message.content).toBe('rina dima')
  })
})
