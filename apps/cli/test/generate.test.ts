import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import {
  BASE,
  CPT,
  copyOf,
  createTemp,
  editJson,
  INSTRUCT,
  run,
  succeed,
  type Temp,
  TRIO,
} from './support.js'

let temp: Temp
beforeAll(async () => {
  temp = await createTemp()
})

const PROMPT = ['--prompt', 'kona : rina dima', '--max-new-tokens', '32', '--temperature', '0']

const RAW = join(TRIO, '../data/raw-a.txt')

/** Makes a tensor's first element a BF16 NaN. */
async function poison(path: string, tensor: string): Promise<void> {
  const bytes = await readFile(path)
  const headerBytes = Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + headerBytes))
  bytes.writeUInt16LE(0x7fc0, 8 + headerBytes + header[tensor].data_offsets[0])
  await writeFile(path, bytes)
}

async function codeOf(args: readonly string[]): Promise<string> {
  const { code, stdout } = await run([...args, '--json'])
  expect(code).toBe(1)
  return JSON.parse(stdout).error.code
}

describe('generate', () => {
  it('answers by the chat template, on any number of threads', async () => {
    for (const threads of ['1', '2']) {
      const args = ['generate', INSTRUCT, ...PROMPT, '--chat', '--threads', threads]
      const answer = await succeed(args)
      expect(answer).toMatchObject({ text: 'rina dima', finishReason: 'stop' })
      expect(answer.promptTokens).toHaveLength(7)
      expect(answer.tokens).toHaveLength(3)
    }
  })

  it('answers the same on WebGPU, and refuses where there is no GPU', { timeout: 120_000 }, async () => {
    const { code, stdout } = await run([
      'generate',
      INSTRUCT,
      ...PROMPT,
      '--chat',
      '--device',
      'webgpu',
      '--json',
    ])
    const answer = JSON.parse(stdout)
    if (code === 0) expect(answer).toMatchObject({ text: 'rina dima', finishReason: 'stop' })
    else expect(['no-adapter', 'no-webgpu']).toContain(answer.error.code)
  })

  it('writes the text as it comes, and nothing else, for people', async () => {
    const { code, stdout } = await run(['generate', INSTRUCT, ...PROMPT, '--chat'])
    expect([code, stdout]).toEqual([0, 'rina dima\n'])
  })

  it('continues plain text, drawn by the seed', async () => {
    const args = (seed: string) => [
      'generate',
      BASE,
      '--prompt',
      'zumi',
      '--temperature',
      '1',
      '--seed',
      seed,
    ]
    const [first, again, other] = await Promise.all(
      ['1', '1', '2'].map((seed) => succeed([...args(seed), '--max-new-tokens', '16'])),
    )
    expect(again).toEqual(first)
    expect(other.tokens).not.toEqual(first.tokens)
    expect(first.tokens.length).toBeLessThanOrEqual(16)
  })

  it('tries a graft that was not written: the answer of the written one', async () => {
    const sources = ['--base', BASE, '--post', INSTRUCT]
    await succeed(['graft', CPT, '-o', temp.at('grafted'), ...sources])
    const prompt = ['--prompt', '@json : degi lago zaga', '--chat']
    const symbolic = await succeed(['generate', CPT, ...sources, ...prompt])
    expect(symbolic).toEqual(await succeed(['generate', temp.at('grafted'), ...prompt]))
    expect(symbolic).toMatchObject({ text: '[ degi , lago , zaga ]', finishReason: 'stop' })
    expect((await run(['generate', CPT, '--base', BASE, ...prompt])).code).toBe(2)
  })

  it('says what is wrong with a checkpoint that cannot answer', async () => {
    const broken = await copyOf(INSTRUCT, temp.at('small-vocabulary'))
    const more = { id: 500, content: '<more>', single_word: false, lstrip: false, rstrip: false }
    await editJson(join(broken, 'tokenizer.json'), (tokenizer) => {
      ;(tokenizer.added_tokens as object[]).push({ ...more, normalized: false, special: true })
    })
    expect(await codeOf(['generate', broken, ...PROMPT])).toBe('vocabulary-mismatch')
    expect(await codeOf(['generate', BASE, ...PROMPT, '--chat'])).toBe('no-chat-template')
    const long = Array(300).fill('kona').join(' ')
    expect(await codeOf(['generate', INSTRUCT, '--prompt', long])).toBe('too-long')
    const poisoned = await copyOf(INSTRUCT, temp.at('nan'))
    await poison(join(poisoned, 'model.safetensors'), 'model.norm.weight')
    expect(await codeOf(['generate', poisoned, ...PROMPT])).toBe('not-finite')
    expect(await codeOf(['eval', poisoned, '--text', `a=${RAW}`])).toBe('not-finite')
    const { code } = await run(['generate', INSTRUCT, '--prompt', 'x', '--temperature', '-1'])
    expect(code).toBe(2)
  })
})
