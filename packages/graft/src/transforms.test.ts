import { graft, verify, verifyUpcycle } from '@polygraft/graft'
import { type JsonObject, pipe } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'
import { contentOf, denseModel, type MixtureOptions, mixtureOf, perturb, store } from '../test/models.js'

const drop: JsonObject = { expertInit: { kind: 'drop', rate: 0.5, moments: {} }, seed: 3 }
const cases: readonly [string, string, MixtureOptions][] = [
  ['two parts', 'llama', { step: { granularity: 2 } }],
  ['three parts, where scaling rounds', 'qwen3', { step: { granularity: 3 } }],
  ['a derived shared expert', 'qwen2', { step: { sharedExpert: 'derived', granularity: 2 } }],
  ['dense layers', 'qwen2', { step: { denseLayers: [1] } }],
  ['fused experts', 'llama', { target: 'granitemoe' }],
  ['fused experts in parts, with a new bias', 'qwen2', { target: 'granitemoe', step: { granularity: 2 } }],
  ['neurons drawn anew', 'llama', { step: drop }],
  [
    'neurons drawn anew, in parts and fused',
    'llama',
    { target: 'granitemoe', step: { ...drop, granularity: 3 } },
  ],
]

describe.each(cases)('%s (%s)', (_, modelType, options) => {
  it('graft(upcycle(base)) is upcycle(post), bit for bit, and verifies', async () => {
    const base = await denseModel(modelType, 1)
    const post = await store(base, { edit: perturb(2, 0.5) })
    const cpt = await store(mixtureOf(base, 2, options))
    const output = await store(pipe(cpt, graft({ base, post })))
    expect(await contentOf(output)).toEqual(await contentOf(mixtureOf(post, 2, options)))
    const failed = async (report: ReturnType<typeof verify>) => (await report).checks.filter(({ ok }) => !ok)
    expect(await failed(verify(output, { base, post, cpt }))).toEqual([])
    expect(await failed(verifyUpcycle(cpt, { base }))).toEqual([])
  })

  it('needs the recipe where weights are cut: from what cpt was trained from', async () => {
    const base = await denseModel(modelType, 1)
    const post = await store(base, { edit: perturb(2, 0.5) })
    const upcycled = mixtureOf(base, 2, options)
    const trained = { ...upcycled, provenance: { recipe: [], skipped: [] } }
    const output = pipe(trained, graft({ base, post, upcycled: upcycled.provenance }))
    expect(await contentOf(output)).toEqual(await contentOf(pipe(upcycled, graft({ base, post }))))
  })
})
