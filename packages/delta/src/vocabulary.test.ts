import { readVocabularies, readVocabulary } from '@polygraft/delta'
import { describe, expect, it } from 'vitest'
import { checkpointOf } from '../test/memory.js'

const read = (files: Record<string, unknown>) =>
  readVocabulary(
    checkpointOf(
      {},
      {},
      Object.fromEntries(
        Object.entries(files).map(([name, value]) => [
          name,
          typeof value === 'string' ? value : JSON.stringify(value),
        ]),
      ),
    ),
  )
const ids = async (files: Record<string, unknown>) => Object.fromEntries((await read(files))?.ids ?? [])

describe('readVocabulary', () => {
  it('reads the vocabulary of BPE, WordLevel and WordPiece, and added tokens', async () => {
    const added_tokens = [{ id: 2, content: '<|eot|>', special: true }]
    const tokenizer = { model: { type: 'BPE', vocab: { a: 0, b: 1 } }, added_tokens }
    expect(await ids({ 'tokenizer.json': tokenizer })).toEqual({ a: 0, b: 1, '<|eot|>': 2 })
  })

  it('reads Unigram lists, where the place is the id', async () => {
    const tokenizer = {
      model: {
        type: 'Unigram',
        vocab: [
          ['<unk>', 0],
          ['▁a', -1.5],
        ],
      },
    }
    expect(await ids({ 'tokenizer.json': tokenizer })).toEqual({ '<unk>': 0, '▁a': 1 })
  })

  it('puts vocab.json, added_tokens.json and tokenizer_config.json together', async () => {
    const files = {
      'vocab.json': { a: 0 },
      'added_tokens.json': { '<x>': 1 },
      'tokenizer_config.json': { added_tokens_decoder: { 2: { content: '<y>' } } },
    }
    expect(await ids(files)).toEqual({ a: 0, '<x>': 1, '<y>': 2 })
  })

  it('reads vocab.txt by line', async () => {
    expect(await ids({ 'vocab.txt': '[PAD]\r\na\n##b\n' })).toEqual({ '[PAD]': 0, a: 1, '##b': 2 })
  })

  it('keeps tokens named like members of objects', async () => {
    const text = '{"model":{"vocab":{"__proto__":0,"constructor":1,"toString":2}}}'
    const vocabulary = await read({ 'tokenizer.json': text })
    expect([...vocabulary!.ids]).toEqual([
      ['__proto__', 0],
      ['constructor', 1],
      ['toString', 2],
    ])
  })

  it('takes the chat templates out of tokenizer_config.json', async () => {
    const tokenizer = { model: { vocab: { a: 0 } } }
    const one = await read({ 'tokenizer.json': tokenizer, 'tokenizer_config.json': { chat_template: 'T' } })
    expect([...one!.chatTemplates]).toEqual([['default', 'T']])
    const chat_template = [
      { name: 'default', template: 'T' },
      { name: 'tool_use', template: 'U' },
    ]
    const two = await read({ 'tokenizer.json': tokenizer, 'tokenizer_config.json': { chat_template } })
    expect([...two!.chatTemplates]).toEqual([
      ['default', 'T'],
      ['tool_use', 'U'],
    ])
  })

  it('is undefined without a tokenizer, or with a lone sentencepiece model', async () => {
    expect(await read({})).toBeUndefined()
    expect(await read({ 'tokenizer.model': 'proto', 'tokenizer_config.json': {} })).toBeUndefined()
    expect(await readVocabularies({})).toEqual({})
  })

  it.each([
    ['bad-json', { 'tokenizer.json': '{"model":' }],
    ['bad-tokenizer', { 'tokenizer.json': [] }],
    ['bad-tokenizer', { 'tokenizer.json': { model: {} } }],
    ['bad-tokenizer', { 'tokenizer.json': { model: { vocab: { a: -1 } } } }],
    ['bad-tokenizer', { 'tokenizer.json': { model: { vocab: { a: 'x' } } } }],
    ['bad-tokenizer', { 'tokenizer.json': { model: { vocab: {} }, added_tokens: [{ id: 1 }] } }],
  ])('refuses what it cannot make sense of (%s)', async (code, files) => {
    await expect(read(files)).rejects.toMatchObject({ code, file: 'tokenizer.json' })
  })
})
