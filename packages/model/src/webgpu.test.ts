import { fileURLToPath } from 'node:url'
import { openModel, type RoutingValues } from '@polygraft/model'
import { ModelError } from '@polygraft/tensor'
import { openFolder } from '@polygraft/tensor-io/node'
import { createDecoderBackend, createGpu, type Gpu } from '@polygraft/webgpu'
import { openDawn } from '@polygraft/webgpu/node'
import { afterAll, describe, expect, it } from 'vitest'

const TOKENS = [0, 9, 40, 77, 5, 3, 100, 12, 64, 31, 8, 90, 2, 17]

/** The machine's GPU, or why there is none. */
async function gpuOrReason(): Promise<Gpu | string> {
  try {
    return await createGpu({ gpu: await openDawn() })
  } catch (error) {
    if (error instanceof ModelError && ['no-adapter', 'no-webgpu'].includes(error.code))
      return error.message.split('\n')[0]!
    throw error
  }
}

const gpu = await gpuOrReason()
afterAll(() => {
  if (typeof gpu !== 'string') gpu.destroy()
})

/** Logits and choices of a prompt, then of one token after the other, of the same cache. */
async function run(name: string, on: Gpu | undefined) {
  const folder = fileURLToPath(new URL(`../../../tools/trio/checkpoints/${name}`, import.meta.url))
  const backend = on && createDecoderBackend(on)
  const model = await openModel(await openFolder(folder), backend ? { backend } : {})
  const experts: number[] = []
  const observer = { routing: (_: number, values: RoutingValues) => experts.push(...values.experts) }
  const cache = model.createCache(TOKENS.length)
  const logits = [
    await model.forward([{ cache, begin: 0, tokens: TOKENS.slice(0, 11), wanted: 'all' }], observer),
  ]
  for (let begin = 11; begin < TOKENS.length; begin++)
    logits.push(await model.forward([{ cache, begin, tokens: TOKENS.slice(begin, begin + 1) }], observer))
  await model.close()
  await backend?.close()
  return { logits: logits.flatMap((values) => [...values]), experts }
}

describe.skipIf(typeof gpu === 'string')(
  `the trio on ${typeof gpu === 'string' ? `no GPU: ${gpu}` : gpu.name}`,
  () => {
    it.each(['base', 'cpt'])(
      '%s has the logits and experts of the CPU, and leaves no buffer',
      async (name) => {
        const device = gpu as Gpu
        const [actual, expected] = [await run(name, device), await run(name, undefined)]
        const scale = Math.max(...expected.logits.map(Math.abs))
        const off = expected.logits.map((value, i) => Math.abs(value - actual.logits[i]!))
        expect(actual.logits).toHaveLength(TOKENS.length * 128)
        expect(Math.max(...off) / scale).toBeLessThan(2e-5)
        expect(actual.experts).toEqual(expected.experts)
        expect(device.live.buffers).toBe(0)
      },
    )
  },
)
