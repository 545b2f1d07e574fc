import { fileURLToPath } from 'node:url'
import { layerDrift, measureRouting } from '@polygraft/evaluate'
import { openModel } from '@polygraft/model'
import { summarizeLoad } from '@polygraft/routing'
import { openFolder } from '@polygraft/tensor-io/node'
import { expect, it } from 'vitest'

const open = async (name: string) =>
  openModel(
    await openFolder(fileURLToPath(new URL(`../../../tools/trio/checkpoints/${name}`, import.meta.url))),
  )
const DOCUMENTS = [0, 1, 2].map((d) => Array.from({ length: 90 }, (_, i) => 2 + ((i * (7 + d)) % 120)))

it('counts where each token goes, layer by layer', async () => {
  const model = await open('cpt')
  const layers = await measureRouting(model, [...DOCUMENTS, [], Array.from({ length: 400 }, () => 9)])
  expect(layers.map(({ layer }) => layer)).toEqual([0, 1, 2, 3])
  for (const layer of layers) {
    const { tokens, share, entropy } = summarizeLoad(layer.load)
    expect(tokens).toBe(270 + model.maxPositions)
    expect(share.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12)
    expect(entropy).toBeGreaterThan(0)
    expect(layerDrift(layer, layer)).toBe(0)
  }
  const [one, two] = [layers[0]!, layers[1]!]
  const expected = [...Array(one.load.tokens).keys()].filter((t) => {
    const of = ({ chosen }: typeof one) => [...chosen.flatMap((c) => [...c])].slice(2 * t, 2 * t + 2).sort()
    return `${of(one)}` !== `${of(two)}`
  }).length
  expect(layerDrift(one, two)).toBeCloseTo(expected / one.load.tokens, 12)
  await model.close()
})

it('finds no mixture in a dense model', async () => {
  const model = await open('base')
  expect(await measureRouting(model, DOCUMENTS)).toEqual([])
  await model.close()
})
