import { fileURLToPath } from 'node:url'
import { evaluate } from '@polygraft/engine'
import {
  type Model,
  measurePromptEmbedding,
  measurePromptStates,
  observeTokens,
  openModel,
  openTokenizer,
} from '@polygraft/model'
import type { Checkpoint } from '@polygraft/tensor'
import { openFolder } from '@polygraft/tensor-io/node'
import { afterAll, beforeAll, expect, it } from 'vitest'

let checkpoint: Checkpoint
let model: Model
beforeAll(async () => {
  const path = fileURLToPath(new URL('../../../tools/trio/checkpoints/base', import.meta.url))
  checkpoint = await openFolder(path)
  model = await openModel(checkpoint)
})
afterAll(() => model.close())

const HIDDEN = 64
const PROMPTS = [[2, 17, 30, 41], [2, 9], Array.from({ length: 256 }, (_, i) => (i * 31) % 128)]

/** What enters layer 2 for each token of a prompt. */
async function rowsOf(prompt: readonly number[]): Promise<number[][]> {
  const values: number[] = []
  await observeTokens(model, prompt, {
    layerInput: (layer, rows) => void (layer === 2 && values.push(...rows)),
  })
  return prompt.map((_, t) => values.slice(t * HIDDEN, (t + 1) * HIDDEN))
}

const meanOf = (rows: readonly (readonly number[])[]) =>
  rows[0]!.map((_, h) => rows.reduce((sum, row) => sum + row[h]!, 0) / rows.length)

const near = (found: Float32Array, expected: readonly number[]) => {
  expect(found.length).toBe(expected.length)
  for (const [i, x] of expected.entries()) expect(Math.abs(found[i]! - x)).toBeLessThan(1e-5)
}

it('has the mean over prompts of what enters each layer, at the last token or over all', async () => {
  const all = await Promise.all(PROMPTS.map(rowsOf))
  const last = await measurePromptStates(model, PROMPTS, 'last')
  expect(last.length).toBe(4)
  near(last[2]!, meanOf(all.map((rows) => rows.at(-1)!)))
  near((await measurePromptStates(model, PROMPTS, 'average'))[2]!, meanOf(all.map(meanOf)))
})

it('has the mean embedding of all tokens, and so what enters the first layer on average', async () => {
  const table = await evaluate(
    { ...checkpoint.tensors.get('model.embed_tokens.weight')!, dtype: 'F32' },
    checkpoint.sources,
  )
  const rows = new Float32Array(table.slice().buffer)
  const rowOf = (token: number) => [...rows.subarray(token * HIDDEN, (token + 1) * HIDDEN)]
  near(await measurePromptEmbedding(checkpoint, PROMPTS), meanOf(PROMPTS.flat().map(rowOf)))
  const [first] = await measurePromptStates(model, [PROMPTS[0]!], 'average')
  near(first!, [...(await measurePromptEmbedding(checkpoint, [PROMPTS[0]!]))])
})

it('refuses prompts without tokens and beyond the context, and tokens without a row', async () => {
  const long = Array.from({ length: 257 }, () => 5)
  const states = measurePromptStates(model, [[], [1], long], 'last')
  await expect(states).rejects.toThrow(
    /bad-prompt[\s\S]*0 tokens in prompt 1 of 3, 257 tokens in prompt 3 of 3/,
  )
  await expect(measurePromptEmbedding(checkpoint, [])).rejects.toThrow('bad-prompt')
  await expect(measurePromptEmbedding(checkpoint, [[128]])).rejects.toThrow('bad-token')
})

it('begins a prompt with the begin token, and ends it with none', async () => {
  const { encode, encodePrompt } = await openTokenizer(checkpoint)
  const begin = checkpoint.config.bos_token_id as number
  const plain = encode('kona rina').filter((id) => id > 3)
  expect(encodePrompt('kona rina')).toEqual([begin, ...plain])
})
