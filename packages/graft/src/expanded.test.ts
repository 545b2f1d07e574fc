import { graft, graftProblems, verify, verifyUpcycle } from '@polygraft/graft'
import { type Checkpoint, pipe } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'
import { contentOf, denseModel, expandedOf, mixtureOf, perturb, store } from '../test/models.js'

// Layers 0, 1 and 3 of the expanded model are 0, 1 and 2 of the base.
const AFTER = [1, 2]
const ORIGINAL = [0, 1, undefined, 2, undefined]
const config = { num_hidden_layers: 3 }
const layerOf = (name: string) => Number(/layers\.(\d+)/.exec(name)?.[1] ?? -1)
const isInserted = (name: string) => layerOf(name) === 2 || layerOf(name) === 4
const failed = async (report: ReturnType<typeof verify>) => (await report).checks.filter(({ ok }) => !ok)

async function trio(modelType: string, seed = 1) {
  const base = await denseModel(modelType, seed, { config })
  const post = await store(base, { edit: perturb(2, 0.5) })
  const expanded = await store(expandedOf(base, AFTER))
  const cpt = await store(expanded, { edit: perturb(5, 0.5, isInserted) })
  return { base, post, expanded, cpt }
}

describe.each(['llama', 'qwen2', 'qwen3'])('layers that were inserted (%s)', (modelType) => {
  it('take no delta; the original ones become post bit for bit, and verify agrees', async () => {
    const { base, post, expanded, cpt } = await trio(modelType)
    const output = await store(pipe(cpt, graft({ base, post })))
    const [before, after, dense] = await Promise.all([cpt, output, post].map(contentOf))
    for (const [name, content] of Object.entries(after!)) {
      const original = name.replace(/layers\.\d+/, `layers.${ORIGINAL[layerOf(name)]}`)
      expect(content, name).toBe(isInserted(name) ? before![name] : dense![original])
    }
    expect(await failed(verify(output, { base, post, cpt }))).toEqual([])
    expect(await failed(verifyUpcycle(expanded, { base }))).toEqual([])
  })
})

describe('a graft onto inserted layers', () => {
  it('is refused where no recipe tells which they are, and works with that of what cpt was trained from', async () => {
    const { base, post, expanded, cpt } = await trio('llama')
    const trained: Checkpoint = { ...cpt, provenance: { recipe: [], skipped: [] } }
    expect(graftProblems(trained, { base, post }).map(({ code }) => code)).toEqual(['recipe-missing'])
    const named = pipe(trained, graft({ base, post, upcycled: expanded.provenance }))
    expect(await contentOf(named)).toEqual(await contentOf(pipe(cpt, graft({ base, post }))))
  })

  it('goes for layer lambdas by the layers of cpt, inserted ones counted', async () => {
    const { base, post, cpt } = await trio('llama')
    const output = pipe(cpt, graft({ base, post, layerLambda: new Map([[3, 0]]) }))
    const [before, after] = await Promise.all([contentOf(cpt), contentOf(output)])
    const moved = Object.keys(after).filter((name) => after[name] !== before[name])
    expect(new Set(moved.map(layerOf))).toEqual(new Set([-1, 0, 1]))
  })

  it('and onto a mixture of them', async () => {
    const { base, post, expanded } = await trio('llama')
    const moe = await store(mixtureOf(expanded, 2))
    const output = await store(pipe(moe, graft({ base, post })))
    expect(await failed(verify(output, { base, post, cpt: moe }))).toEqual([])
    expect(await failed(verifyUpcycle(moe, { base }))).toEqual([])
    expect(await failed(verifyUpcycle(moe, { base: expanded }))).toEqual([])
  })

  it('verification sees an inserted layer that adds something, and an original one that is not base', async () => {
    const { base, expanded } = await trio('llama')
    for (const name of ['model.layers.2.mlp.down_proj.weight', 'model.layers.3.mlp.down_proj.weight']) {
      const spoilt = await store(expanded, { edit: perturb(7, 1, (each) => each === name) })
      expect((await failed(verifyUpcycle(spoilt, { base }))).map((check) => check.name)).toEqual(['others'])
    }
  })
})
