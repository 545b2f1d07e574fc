import { ModelError } from '@polygraft/tensor'
import { createGpu, type Gpu } from '@polygraft/webgpu'
import { openDawn } from '@polygraft/webgpu/node'
import { afterAll, describe, expect, it } from 'vitest'
import { CASE_NAMES, runCase } from './suite/index.js'

/** The machine's GPU, or why there is none. */
async function gpuOrReason(): Promise<Gpu | string> {
  try {
    return await createGpu({ gpu: await openDawn() })
  } catch (error) {
    if (error instanceof ModelError && ['no-adapter', 'no-webgpu'].includes(error.code)) return error.message
    throw error
  }
}

const found = await gpuOrReason()
afterAll(() => {
  if (typeof found !== 'string') found.destroy()
})

describe(`the suite on ${typeof found === 'string' ? 'no GPU' : found.name}`, () => {
  if (typeof found === 'string') it.skip(`${CASE_NAMES.length} cases: ${found.split('\n')[0]}`, () => {})
  else
    it.each(CASE_NAMES)('%s', async (name) => {
      const { status, message } = await runCase(found, name)
      expect(message, status).toBe(status === 'skipped' ? message : undefined)
    })
})
