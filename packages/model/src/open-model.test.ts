import { fileURLToPath } from 'node:url'
import { createCpuBackend, openModel, type RoutingValues } from '@polygraft/model'
import type { Checkpoint } from '@polygraft/tensor'
import { openFolder } from '@polygraft/tensor-io/node'
import { describe, expect, it } from 'vitest'

const open = (name: string) =>
  openFolder(fileURLToPath(new URL(`../../../tools/trio/checkpoints/${name}`, import.meta.url)))
const TOKENS = [0, 9, 40, 77, 5, 3, 100, 12, 64, 31, 8, 90, 2, 17]

/** Logits of every token, all at once. */
async function logitsOf(checkpoint: Checkpoint, threads?: number): Promise<Float32Array> {
  const backend = threads === undefined ? undefined : await createCpuBackend({ threads })
  const model = await openModel(checkpoint, backend ? { backend } : {})
  const cache = model.createCache(TOKENS.length)
  const logits = await model.forward([{ cache, begin: 0, tokens: TOKENS, wanted: 'all' }])
  await model.close()
  await backend?.close()
  return logits
}

describe.each(['base', 'cpt'])('the trio: %s', (name) => {
  it('has the same logits with one thread and with several', async () => {
    const checkpoint = await open(name)
    const logits = await logitsOf(checkpoint)
    expect(logits).toHaveLength(TOKENS.length * 128)
    expect(await logitsOf(checkpoint, 2)).toEqual(logits)
    expect(await logitsOf(checkpoint, 3)).toEqual(logits)
  })

  it('has the same logits token by token, beside another sequence, and from a copied cache', async () => {
    const checkpoint = await open(name)
    const logits = await logitsOf(checkpoint)
    const model = await openModel(checkpoint)
    const [cache, other, copy] = [16, 20, 40].map((capacity) => model.createCache(capacity)) as [
      never,
      never,
      never,
    ]
    for (const [begin, token] of TOKENS.entries()) {
      const spans = [
        { cache: other, begin: begin, tokens: [begin], wanted: 'none' as const },
        { cache, begin, tokens: [token] },
      ]
      expect(await model.forward(spans)).toEqual(logits.subarray(begin * 128, (begin + 1) * 128))
    }
    model.backend.copyCache(cache, copy, 9)
    const rest = await model.forward([{ cache: copy, begin: 9, tokens: TOKENS.slice(9), wanted: 'all' }])
    expect(rest).toEqual(logits.subarray(9 * 128))
    await model.close()
  })
})

it('shows the choices of each mixture layer', async () => {
  const model = await openModel(await open('cpt'))
  const seen = new Map<number, RoutingValues>()
  const inputs: number[] = []
  const observer = {
    routing: (layer: number, values: RoutingValues) => seen.set(layer, values),
    feedForwardInput: (layer: number, values: Float32Array) => inputs.push(layer, values.length),
  }
  await model.forward([{ cache: model.createCache(16), begin: 0, tokens: TOKENS }], observer)
  expect([...seen.keys()]).toEqual([0, 1, 2, 3])
  expect(inputs).toEqual([0, 1, 2, 3].flatMap((layer) => [layer, TOKENS.length * 64]))
  for (const { probabilities, experts, weights } of seen.values()) {
    expect([probabilities.length, experts.length, weights.length]).toEqual([42, 28, 28])
    for (let row = 0; row < TOKENS.length; row++) {
      const [first, second] = [0, 1].map((slot) => probabilities[row * 3 + experts[row * 2 + slot]!]!)
      expect(first).toBeGreaterThanOrEqual(second!)
      expect(weights[row * 2]! + weights[row * 2 + 1]!).toBeCloseTo(1, 6)
    }
  }
  await model.close()
})

describe('bad input', () => {
  it('names tokens outside of the vocabulary and sequences that are too long, all together', async () => {
    const model = await openModel(await open('base'))
    const cache = model.createCache(8)
    const spans = [
      { cache, begin: 0, tokens: [1, 128] },
      { cache, begin: 0, tokens: [0.5] },
      { cache, begin: 0, tokens: TOKENS },
    ]
    const error = await model.forward(spans).catch((reason) => reason)
    expect(error.problems.map(({ code }: { code: string }) => code)).toEqual([
      'bad-token',
      'bad-token',
      'too-long',
    ])
    await model.close()
  })

  it('refuses a checkpoint with missing tensors, and NaN logits', async () => {
    const checkpoint = await open('base')
    const name = 'model.norm.weight'
    const norm = checkpoint.tensors.get(name)!
    const without = new Map(checkpoint.tensors)
    without.delete(name)
    await expect(openModel({ ...checkpoint, tensors: without })).rejects.toMatchObject({
      code: 'missing-tensor',
    })
    const expr = { op: 'scale', by: Number.NaN, arg: norm.expr } as const
    const poisoned = new Map(checkpoint.tensors).set(name, { ...norm, expr })
    const model = await openModel({ ...checkpoint, tensors: poisoned })
    const run = model.forward([{ cache: model.createCache(8), begin: 0, tokens: [1] }])
    await expect(run).rejects.toMatchObject({ code: 'not-finite' })
    await model.close()
  })
})

it('shows them in greedy steps too', async () => {
  const model = await openModel(await open('cpt'))
  const watch = async (run: 'forward' | 'forwardGreedy') => {
    const seen: [number, ...number[]][] = []
    const observer = {
      routing: (layer: number, { experts }: RoutingValues) => seen.push([layer, ...experts]),
    }
    await model[run]([{ cache: model.createCache(TOKENS.length), begin: 0, tokens: TOKENS }], observer)
    return seen
  }
  const greedy = await watch('forwardGreedy')
  expect(greedy).toHaveLength(model.dimensions.numLayers)
  expect(greedy).toEqual(await watch('forward'))
  await model.close()
})
