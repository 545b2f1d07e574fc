import { afterAll, describe, expect, it } from 'vitest'
import { gpuOrReason } from './gpu-or-reason.js'
import { runCase, SUITE } from './suite/index.js'

const found = await gpuOrReason()
afterAll(() => {
  if (typeof found !== 'string') found.destroy()
})

describe(`the suite on ${typeof found === 'string' ? 'no GPU' : found.name}`, () => {
  if (typeof found === 'string') it.skip(`${SUITE.length} cases: ${found}`, () => {})
  else
    it.each(SUITE)('$name', async (each) => {
      const { status, message } = await runCase(found, each)
      expect(message, status).toBe(status === 'skipped' ? message : undefined)
    })
})
