import { createDelta } from '@polygraft/delta'
import { graft, verify, verifyUpcycle } from '@polygraft/graft'
import { type JsonObject, pipe } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'
import {
  contentOf,
  denseModel,
  type MixtureOptions,
  mixtureOf,
  perturb,
  store,
  valuesOf,
} from '../test/models.js'

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

describe.each(cases.filter(([, , { step }]) => step?.granularity !== 3))(
  '%s (%s)',
  (_, modelType, options) => {
    it('a stored delta gives what the pair gives', async () => {
      const base = await denseModel(modelType, 1)
      const post = await store(base, { edit: perturb(2, 0.5) })
      const cpt = await store(mixtureOf(base, 2, options), { edit: perturb(5, 1) })
      const delta = await store(createDelta({ base, post }))
      const settings = { lambda: 0.75, expertLambda: new Map([[1, 0.5]]) }
      const [a, b] = [pipe(cpt, graft({ base, post, ...settings })), pipe(cpt, graft({ delta, ...settings }))]
      expect(await contentOf(b)).toEqual(await contentOf(a))
    })
  },
)

describe('expertLambda', () => {
  it('goes to each expert of a fused tensor as to one of its own', async () => {
    const base = await denseModel('llama', 1)
    const post = await store(base, { edit: perturb(2, 0.5) })
    const settings = {
      base,
      post,
      expertLambda: new Map([
        [1, 0.5],
        [2, 0],
      ]),
    }
    const [single, fused] = (['mixtral', 'granitemoe'] as const).map((target) =>
      pipe(mixtureOf(base, 3, { target }), graft(settings)),
    )
    const block = 'model.layers.1.block_sparse_moe'
    const parts = async (...names: readonly string[]) => {
      const values = await Promise.all(
        [0, 1, 2].flatMap((e) =>
          names.map((name) => valuesOf(single!, `${block}.experts.${e}.${name}.weight`)),
        ),
      )
      return values.flatMap((each) => [...each])
    }
    expect([...(await valuesOf(fused!, `${block}.input_linear.weight`))]).toEqual(await parts('w1', 'w3'))
    expect([...(await valuesOf(fused!, `${block}.output_linear.weight`))]).toEqual(await parts('w2'))
  })
})
