import { dimensionsOf, familyOf, nameOf } from '@polygraft/architectures'
import { evaluate } from '@polygraft/engine'
import { type Checkpoint, ModelError, type Tensor } from '@polygraft/tensor'
import { observeTokens } from './observe-tokens.js'
import type { Model } from './open-model.js'

/*
 * Letters: L layers, H hidden.
 */

/** Prompts as their tokens. */
export type Prompts = readonly (readonly number[])[]

/**
 * What enters each layer, for the last token of a prompt or on average over its tokens; the mean over the prompts: [L] of [H], summed in F64.
 * @throws ModelError "bad-prompt" with every prompt that is empty or longer than the model's context; what `forward` throws.
 */
export async function measurePromptStates(
  model: Model,
  prompts: Prompts,
  tokens: 'last' | 'average',
  signal?: AbortSignal,
): Promise<Float32Array[]> {
  checkPrompts(prompts, model.maxPositions)
  const { numLayers, hiddenSize } = model.dimensions
  const sums = Array.from({ length: numLayers }, () => new Float64Array(hiddenSize))
  for (const prompt of prompts) {
    const own = sums.map(() => new Float64Array(hiddenSize))
    const layerInput = (layer: number, rows: Float32Array) => {
      if (tokens === 'last') own[layer]!.set(rows.subarray(rows.length - hiddenSize))
      else for (const [i, x] of rows.entries()) own[layer]![i % hiddenSize]! += x / prompt.length
    }
    await observeTokens(model, prompt, { layerInput }, signal)
    for (const [layer, state] of own.entries()) addTo(sums[layer]!, state)
  }
  return sums.map((sum) => Float32Array.from(sum, (x) => x / prompts.length))
}

/**
 * The mean embedding of all tokens of all prompts, [H], summed in F64; reads their rows of the table alone.
 * @throws ModelError "bad-prompt" for an empty one; "bad-token" for an id without a row.
 */
export async function measurePromptEmbedding(
  checkpoint: Checkpoint,
  prompts: Prompts,
): Promise<Float32Array> {
  checkPrompts(prompts, Number.POSITIVE_INFINITY)
  const family = familyOf(checkpoint.config)
  const { hiddenSize, vocabularySize } = dimensionsOf(family, checkpoint.config)
  const table = checkpoint.tensors.get(nameOf(family, { group: 'embedding' })!)!
  const tokens = prompts.flat()
  const wrong = tokens.find((token) => !(token >= 0 && token < vocabularySize))
  if (wrong !== undefined)
    throw new ModelError({
      code: 'bad-token',
      message: 'A prompt has a token that the model does not know',
      expected: `an id from 0 to ${vocabularySize - 1}`,
      received: `${wrong}`,
      next: 'Use the tokenizer that belongs to the checkpoint.',
    })
  const rows = new Map<number, Float32Array>()
  for (const token of new Set(tokens)) rows.set(token, await rowOf(table, token, hiddenSize, checkpoint))
  const sum = new Float64Array(hiddenSize)
  for (const token of tokens) addTo(sum, rows.get(token)!)
  return Float32Array.from(sum, (x) => x / tokens.length)
}

async function rowOf(table: Tensor, row: number, width: number, { sources }: Checkpoint) {
  const range = { begin: row * width, end: (row + 1) * width }
  const bytes = await evaluate({ ...table, dtype: 'F32' }, sources, range)
  return new Float32Array(bytes.slice().buffer)
}

function addTo(sum: Float64Array, values: ArrayLike<number>): void {
  for (let i = 0; i < sum.length; i++) sum[i]! += values[i]!
}

function checkPrompts(prompts: Prompts, most: number): void {
  const wrong = prompts.flatMap(({ length }, i) => (length > 0 && length <= most ? [] : [{ i, length }]))
  if (wrong.length === 0 && prompts.length > 0) return
  throw new ModelError({
    code: 'bad-prompt',
    message: 'A prompt has no tokens, or more than the model has positions',
    expected: most < Number.POSITIVE_INFINITY ? `1 to ${most} tokens` : '1 or more tokens',
    received:
      wrong.map(({ i, length }) => `${length} tokens in prompt ${i + 1} of ${prompts.length}`).join(', ') ||
      'no prompts',
  })
}
