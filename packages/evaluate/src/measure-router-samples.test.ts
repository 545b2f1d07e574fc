import { fileURLToPath } from 'node:url'
import { measureRouterSamples } from '@polygraft/evaluate'
import { observeTokens, openModel } from '@polygraft/model'
import { languageRouter } from '@polygraft/routing'
import { openFolder } from '@polygraft/tensor-io/node'
import { expect, it } from 'vitest'

const DOCUMENTS = [0, 1].map((d) =>
  [0, 1].map((i) => Array.from({ length: 40 }, (_, t) => 2 + 60 * d + ((t * 7 + i) % 50))),
)

it('sums what each layer shows its router, expert by expert, up to so many tokens', async () => {
  const folder = fileURLToPath(new URL('../../../tools/trio/checkpoints/base', import.meta.url))
  const model = await openModel(await openFolder(folder))
  const samples = await measureRouterSamples(model, DOCUMENTS, { withProducts: true, maxTokens: 50 })
  expect([...samples.keys()]).toEqual([0, 1, 2, 3])
  const sums = new Float64Array(64)
  for (const document of [DOCUMENTS[1]![0]!, DOCUMENTS[1]![1]!.slice(0, 10)])
    await observeTokens(model, document, {
      feedForwardInput(layer, values) {
        if (layer === 2) for (const [i, value] of values.entries()) sums[i % 64]! += value
      },
    })
  await model.close()
  const { tokens, sums: actual, products } = samples.get(2)!
  expect([...tokens]).toEqual([50, 50])
  for (let h = 0; h < 64; h++) expect(actual[64 + h]).toBeCloseTo(sums[h]!, 9)
  const trace = [...Array(64).keys()].reduce((total, h) => total + products![h * 65]!, 0)
  expect(trace).toBeGreaterThan(0)
  for (const kind of ['means', 'lda'] as const)
    expect(languageRouter(samples.get(2)!, { kind })).toHaveLength(128)
})
