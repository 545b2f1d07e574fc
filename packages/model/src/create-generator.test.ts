import { fileURLToPath } from 'node:url'
import {
  type Backend,
  createCpuBackend,
  createGenerator,
  type Generator,
  type Model,
  openModel,
  openTokenizer,
  readEndTokens,
  type TextTokenizer,
} from '@polygraft/model'
import type { Tensor } from '@polygraft/tensor'
import { openFolder } from '@polygraft/tensor-io/node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const checkpoint = await openFolder(
  fileURLToPath(new URL('../../../tools/trio/checkpoints/instruct', import.meta.url)),
)
const CONVERSATION = [{ role: 'user', content: 'kona : rina dima' }]

let model: Model
let tokenizer: TextTokenizer
let generator: Generator
let endTokens: number[]
/** Rows that each step has computed. */
const steps: number[] = []

beforeAll(async () => {
  tokenizer = await openTokenizer(checkpoint)
  endTokens = await readEndTokens(checkpoint)
  const backend = await createCpuBackend()
  const beginStep: typeof backend.beginStep = (input) => {
    steps.push(input.tokens.length)
    return backend.beginStep(input)
  }
  model = await openModel(checkpoint, { backend: { ...backend, beginStep } })
  generator = createGenerator(model, tokenizer)
})
afterAll(async () => {
  generator.close()
  await model.backend.close()
})

/** The answer, and the pieces that it came in. */
async function collect(prompt: readonly number[], options: Parameters<Generator['stream']>[1] = {}) {
  const pieces: string[] = []
  const stream = generator.stream(prompt, options)
  for (;;) {
    const step = await stream.next()
    if (step.done) return { ...step.value, pieces }
    pieces.push(step.value)
  }
}

describe('stream', () => {
  it('answers a conversation up to the end token', async () => {
    const prompt = tokenizer.encodeChat(CONVERSATION)
    const answer = await collect(prompt, { endTokens, maxNewTokens: 20 })
    expect(answer).toMatchObject({ text: 'rina dima', pieces: ['rina', ' dima'], finishReason: 'stop' })
    expect(answer.promptTokens).toEqual(prompt)
    expect(endTokens).toContain(answer.tokens.at(-1))
    expect(answer.tokens).toHaveLength(3)
  })

  it('leaves a stop string out, wherever tokens end', async () => {
    const prompt = tokenizer.encodeChat(CONVERSATION)
    for (const [stop, text] of [
      ['na di', 'ri'],
      ['rina', ''],
      ['dima!', 'rina dima'],
    ] as const) {
      const answer = await collect(prompt, { endTokens, stop: [stop], maxNewTokens: 20 })
      expect(answer.text).toBe(text)
    }
  })

  it('takes what it knows of a prompt from the answer before', async () => {
    const prompt = tokenizer.encodeChat(CONVERSATION)
    const fresh = createGenerator(model, tokenizer)
    const expected = await fresh.complete([[...prompt, 9, 10, 11]], { maxNewTokens: 6 })
    fresh.close()
    await collect(prompt, { maxNewTokens: 0 })
    await collect(prompt, { maxNewTokens: 1 })
    steps.length = 0
    const answer = await collect([...prompt, 9, 10, 11], { maxNewTokens: 6 })
    expect(answer.tokens).toEqual(expected[0]!.tokens)
    expect(steps).toEqual([3, 1, 1, 1, 1, 1])
  })

  it('stops when it is aborted, and goes on with the next', async () => {
    const abort = new AbortController()
    const stream = generator.stream([2, 9, 10], { signal: abort.signal })
    await stream.next()
    abort.abort(new Error('enough'))
    await expect(stream.next()).rejects.toThrow('enough')
    expect((await collect([2, 9], { maxNewTokens: 2 })).tokens).toHaveLength(2)
  })

  it('ends where the context does, and refuses a prompt beyond it', async () => {
    const full = Array.from({ length: model.maxPositions - 2 }, (_, i) => 7 + (i % 90))
    const answer = await collect(full)
    expect(answer).toMatchObject({ finishReason: 'length' })
    expect(answer.tokens).toHaveLength(2)
    await expect(collect([...full, 7, 7, 7])).rejects.toMatchObject({ code: 'too-long' })
    await expect(collect([])).rejects.toMatchObject({ code: 'empty-prompt' })
  })
})

/** A generator over a backend that counts what is not freed. */
async function counted(change: (tensors: Map<string, Tensor>) => void = () => {}) {
  const backend = await createCpuBackend()
  const live = { caches: 0, steps: 0 }
  const tensors = new Map(checkpoint.tensors)
  change(tensors)
  const counting: Backend = {
    ...backend,
    createCache(layout, capacity) {
      live.caches++
      return backend.createCache(layout, capacity)
    },
    freeCache(cache) {
      live.caches--
      backend.freeCache(cache)
    },
    beginStep(input) {
      live.steps++
      return backend.beginStep(input)
    },
    endStep(step) {
      live.steps--
      backend.endStep(step)
    },
  }
  const own = createGenerator(await openModel({ ...checkpoint, tensors }, { backend: counting }), tokenizer)
  return { own, live, close: () => backend.close() }
}

describe('what was taken is given back', () => {
  const drain = async (pieces: AsyncGenerator<string>) => {
    for await (const _ of pieces);
  }

  it('after answers, refusals, and those who leave in the middle', async () => {
    const { own, live, close } = await counted()
    for (let round = 0; round < 3; round++) {
      await drain(own.stream([2, 9, 10], { maxNewTokens: 5 }))
      const abort = new AbortController()
      const aborted = own.stream([2, 9, 10], { signal: abort.signal })
      await aborted.next()
      abort.abort(new Error('enough'))
      await expect(aborted.next()).rejects.toThrow('enough')
      for await (const _ of own.stream([2, 40])) break
      await expect(own.complete([[2, 9], [500]])).rejects.toMatchObject({ code: 'bad-token' })
      await expect(own.complete([[2, 9], []])).rejects.toMatchObject({ code: 'empty-prompt' })
      await expect(drain(own.stream(Array(300).fill(7)))).rejects.toMatchObject({ code: 'too-long' })
      // The last answer's, for a prompt that begins as it did.
      expect(live).toEqual({ caches: 1, steps: 0 })
    }
    own.close()
    expect(live.caches).toBe(0)
    await close()
  })

  it('after logits that are NaN', async () => {
    const name = 'model.norm.weight'
    const { own, live, close } = await counted((tensors) => {
      const norm = tensors.get(name)!
      tensors.set(name, { ...norm, expr: { op: 'scale', by: Number.NaN, arg: norm.expr } })
    })
    for (let round = 0; round < 3; round++) {
      await expect(own.complete([[2, 9], [2]])).rejects.toMatchObject({ code: 'not-finite' })
      await expect(drain(own.stream([2, 9]))).rejects.toMatchObject({ code: 'not-finite' })
    }
    own.close()
    expect(live).toEqual({ caches: 0, steps: 0 })
    await close()
  })
})

it('complete gives each prompt the answer that it has alone, drawn by the same seed', async () => {
  const prompts = [[2, 9, 10, 11, 12], [2, 40], tokenizer.encodeChat(CONVERSATION)]
  for (const sampling of [{}, { temperature: 1, topP: 0.9, seed: 3 }]) {
    const options = { ...sampling, endTokens, maxNewTokens: 12 }
    const together = await generator.complete(prompts, options)
    for (const [i, prompt] of prompts.entries()) {
      const { pieces, ...alone } = await collect(prompt, options)
      expect(pieces.join('')).toBe(alone.text)
      expect(together[i]).toEqual(alone)
    }
  }
})
