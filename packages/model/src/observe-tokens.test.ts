import { fileURLToPath } from 'node:url'
import { evaluate } from '@polygraft/engine'
import { type Model, observeTokens, openModel } from '@polygraft/model'
import type { Checkpoint } from '@polygraft/tensor'
import { openFolder } from '@polygraft/tensor-io/node'
import { afterAll, beforeAll, expect, it } from 'vitest'

let checkpoint: Checkpoint
let model: Model
beforeAll(async () => {
  checkpoint = await openFolder(
    fileURLToPath(new URL('../../../tools/trio/checkpoints/cpt', import.meta.url)),
  )
  model = await openModel(checkpoint)
})
afterAll(() => model.close())

const HIDDEN = 64
const TOKENS = Array.from({ length: 300 }, (_, i) => (i * 37) % 128)

/** What enters each layer, and what its feed-forward block sees, row after row. */
async function observed(tokens: readonly number[]) {
  const rows = { layers: [] as number[][], blocks: [] as number[][] }
  const seen = await observeTokens(model, tokens, {
    layerInput: (layer, values) => rows.layers.push([layer, ...values]),
    feedForwardInput: (layer, values) => rows.blocks.push([layer, ...values]),
  })
  return { ...rows, seen }
}

it('shows the embedding as it enters the first layer, and each layer in turn', async () => {
  const { layers, blocks } = await observed(TOKENS.slice(0, 5))
  expect(layers.map(([layer]) => layer)).toEqual([0, 1, 2, 3])
  expect(blocks.map(({ length }) => length)).toEqual(Array(4).fill(1 + 5 * HIDDEN))
  const table = checkpoint.tensors.get('model.embed_tokens.weight')!
  const embedded = []
  for (const token of TOKENS.slice(0, 5)) {
    const range = { begin: token * HIDDEN, end: (token + 1) * HIDDEN }
    const bytes = await evaluate({ ...table, dtype: 'F32' }, checkpoint.sources, range)
    embedded.push(...new Float32Array(bytes.slice().buffer))
  }
  expect(layers[0]!.slice(1)).toEqual(embedded)
  expect(layers[1]).not.toEqual([1, ...embedded])
})

it('goes on where a step ends, and cuts at the context', async () => {
  expect(model.maxPositions).toBe(256)
  expect((await observed(TOKENS)).seen).toBe(256)
  const config = { ...checkpoint.config, max_position_embeddings: 512 }
  const longer = await openModel({ ...checkpoint, config })
  const steps: number[] = []
  const all: number[] = []
  const seen = await observeTokens(longer, TOKENS, {
    feedForwardInput(layer, values) {
      if (layer !== 3) return
      steps.push(values.length / HIDDEN)
      all.push(...values)
    },
  })
  expect([seen, steps]).toEqual([300, [256, 44]])
  const cache = longer.createCache(300)
  let atOnce: number[] = []
  await longer.forward([{ cache, begin: 0, tokens: TOKENS }], {
    feedForwardInput: (layer, values) => {
      if (layer === 3) atOnce = [...values]
    },
  })
  expect(all).toEqual(atOnce)
  await longer.close()
})

it('sees nothing of an empty sequence, and stops when told', async () => {
  expect(await observed([])).toEqual({ layers: [], blocks: [], seen: 0 })
  await expect(observeTokens(model, TOKENS, {}, AbortSignal.abort(new Error('enough')))).rejects.toThrow(
    'enough',
  )
})
