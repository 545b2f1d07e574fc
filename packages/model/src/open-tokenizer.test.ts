import { fileURLToPath } from 'node:url'
import { openTokenizer, readEndTokens } from '@polygraft/model'
import type { Checkpoint } from '@polygraft/tensor'
import { openFolder } from '@polygraft/tensor-io/node'
import { describe, expect, it } from 'vitest'

const open = (name: string) =>
  openFolder(fileURLToPath(new URL(`../../../tools/trio/checkpoints/${name}`, import.meta.url)))
const INSTRUCT = await open('instruct')

/** The checkpoint with files changed; undefined takes one away. */
function withFiles(changes: Readonly<Record<string, string | undefined>>): Checkpoint {
  const files = new Map(INSTRUCT.files)
  for (const [name, text] of Object.entries(changes))
    if (text === undefined) files.delete(name)
    else files.set(name, new Blob([text]))
  return { ...INSTRUCT, files }
}

describe('openTokenizer', () => {
  it('encodes with what the tokenizer puts around a text, and decodes without', async () => {
    const tokenizer = await openTokenizer(INSTRUCT)
    const tokens = tokenizer.encode('rina dima')
    expect(tokens[0]).toBe(2)
    expect(tokens).toHaveLength(3)
    expect(tokenizer.decode(tokens)).toBe('rina dima')
    expect(tokenizer.decode([])).toBe('')
  })

  it('begins a document with the begin token once, and goes on without', async () => {
    const tokenizer = await openTokenizer(INSTRUCT)
    const tokens = tokenizer.encode('rina dima')
    expect(tokenizer.begin('rina dima')).toEqual(tokens)
    expect(tokenizer.begin('<bos> rina dima')).toEqual(tokens)
    expect(tokenizer.encode('<bos> rina dima')).toEqual([2, ...tokens])
    expect(tokenizer.continue('rina dima')).toEqual(tokens.slice(1))
  })

  it('writes a conversation by the chat template', async () => {
    const tokenizer = await openTokenizer(INSTRUCT)
    const tokens = tokenizer.encodeChat([{ role: 'user', content: 'rina dima' }])
    expect(tokens).toEqual([2, 4, ...tokenizer.encode('rina dima').slice(1), 5])
  })

  it('finds the template in the config, too', async () => {
    const settings = JSON.stringify({
      chat_template: [{ name: 'default', template: "{{ bos_token + ' ' + messages[0]['content'] }}" }],
      bos_token: { content: '<bos>' },
    })
    const changes = { 'chat_template.jinja': undefined, 'tokenizer_config.json': settings }
    const tokenizer = await openTokenizer(withFiles(changes))
    expect(tokenizer.encodeChat([{ role: 'user', content: 'rina' }])).toEqual(tokenizer.encode('rina'))
  })

  it.each([
    ['no-tokenizer', { 'tokenizer.json': undefined }],
    ['bad-json', { 'tokenizer.json': '{' }],
    ['bad-tokenizer', { 'tokenizer.json': '{"model": {"type": "Nothing"}}' }],
  ])('refuses with %s', async (code, changes) => {
    await expect(openTokenizer(withFiles(changes))).rejects.toMatchObject({ code })
  })

  it('refuses tokens without a row in the embedding', async () => {
    const config = { ...INSTRUCT.config, vocab_size: 100 }
    const opened = openTokenizer({ ...INSTRUCT, config })
    await expect(opened).rejects.toMatchObject({ code: 'vocabulary-mismatch' })
  })

  it('says that there is no chat template, or what it says itself', async () => {
    const none = await openTokenizer(withFiles({ 'chat_template.jinja': undefined }))
    const message = [{ role: 'user', content: 'rina' }]
    expect(() => none.encodeChat(message)).toThrow(expect.objectContaining({ code: 'no-chat-template' }))
    const strict = await openTokenizer(withFiles({ 'chat_template.jinja': "{{ raise_exception('never') }}" }))
    expect(() => strict.encodeChat(message)).toThrow(/never/)
  })
})

it('readEndTokens takes generation_config.json before config.json', async () => {
  expect(await readEndTokens(INSTRUCT)).toEqual([3, 6])
  const config = { ...INSTRUCT.config, eos_token_id: 3 }
  const without = withFiles({ 'generation_config.json': undefined })
  expect(await readEndTokens({ ...without, config })).toEqual([3])
})
