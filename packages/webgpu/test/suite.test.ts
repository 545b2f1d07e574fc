import { afterAll, describe, expect, it } from 'vitest'
import { gpuOrReason } from './gpu-or-reason.js'
import { CASE_NAMES, runCase } from './suite/index.js'

const found = await gpuOrReason()
afterAll(() => {
  if (typeof found !== 'string') found.destroy()
})

describe(`the suite on ${typeof found === 'string' ? 'no GPU' : found.name}`, () => {
  if (typeof found === 'string') it.skip(`${CASE_NAMES.length} cases: ${found}`, () => {})
  else
    it.each(CASE_NAMES)('%s', async (name) => {
      const { status, message } = await runCase(found, name)
      expect(message, status).toBe(status === 'skipped' ? message : undefined)
    })
})
