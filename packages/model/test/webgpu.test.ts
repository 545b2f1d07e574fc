import { fileURLToPath } from 'node:url'
import { openModel } from '@polygraft/model'
import { ModelError } from '@polygraft/tensor'
import { openFolder } from '@polygraft/tensor-io/node'
import { createDecoderBackend, createGpu, type Gpu } from '@polygraft/webgpu'
import { openDawn } from '@polygraft/webgpu/node'
import { afterAll, describe, expect, it } from 'vitest'
import { compare, MODEL_CASES } from './webgpu/index.js'

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

describe(`models on ${typeof gpu === 'string' ? 'no GPU' : gpu.name}`, () => {
  if (typeof gpu === 'string') {
    it.skip(`${MODEL_CASES.length} cases: ${gpu}`, () => {})
    return
  }
  it.each(MODEL_CASES)('$name', async ({ run }) => {
    await run(gpu)
    expect(gpu.live.buffers).toBe(0)
  })

  it.each(['base', 'cpt'])("the trio's %s: the logits and experts of the CPU", async (name) => {
    const folder = new URL(`../../../tools/trio/checkpoints/${name}`, import.meta.url)
    await compare(await openFolder(fileURLToPath(folder)), gpu)
    expect(gpu.live.buffers).toBe(0)
  })

  it('says that the device was lost in mid-run, frees all, and others go on', async () => {
    const lost = await gpuOrReason()
    if (typeof lost === 'string') throw new Error(lost)
    const folder = new URL('../../../tools/trio/checkpoints/cpt', import.meta.url)
    const checkpoint = await openFolder(fileURLToPath(folder))
    const backend = createDecoderBackend(lost)
    const model = await openModel(checkpoint, { backend })
    const cache = model.createCache(8)
    const pending = model.forward([{ cache, begin: 0, tokens: [1, 2, 3] }])
    lost.device.destroy()
    await expect(pending).rejects.toMatchObject({ code: 'device-lost' })
    const again = model.forward([{ cache, begin: 0, tokens: [1] }])
    await expect(again).rejects.toMatchObject({ code: 'device-lost' })
    await model.close()
    await backend.close()
    expect(lost.live.buffers).toBe(0)
    await compare(checkpoint, gpu)
  })
})
