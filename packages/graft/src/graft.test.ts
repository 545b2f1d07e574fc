import { familyOf, roleOf } from '@polygraft/architectures'
import { createDelta } from '@polygraft/delta'
import { graft } from '@polygraft/graft'
import { type Checkpoint, type FloatDType, numel, pipe } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  bytesOf,
  contentOf,
  denseModel,
  mixtureOf,
  perturb,
  roundToBf16,
  store,
  valuesOf,
} from '../test/models.js'

const FAMILIES = ['llama', 'mistral', 'qwen2', 'qwen3']
const isNewExpert = (name: string) => /experts\.[1-9]/.test(name)
const isRouter = (checkpoint: Checkpoint) => (name: string) =>
  roleOf(familyOf(checkpoint.config), name).group === 'router'

/** A dense base and a post-trained version of it that differs in about half of its elements. */
async function pairOf(modelType: string, seed = 1, dtype: FloatDType = 'BF16') {
  const base = await denseModel(modelType, seed, { dtype })
  return { base, post: await store(base, { edit: perturb(seed + 1, 0.5) }) }
}

describe.each(FAMILIES)('%s', (modelType) => {
  it('graft(upcycle(base)) is upcycle(post), bit for bit, every tensor (property 2)', async () => {
    const { base, post } = await pairOf(modelType)
    const grafted = pipe(mixtureOf(base, 3), graft({ base, post }))
    expect(await contentOf(grafted)).toEqual(await contentOf(mixtureOf(post, 3)))
    expect(grafted.config).toEqual(mixtureOf(post, 3).config)
  })

  it('what the default freeze left alone becomes post, bit for bit; routers stay (properties 3 and 7)', async () => {
    const { base, post } = await pairOf(modelType)
    const symbolic = mixtureOf(base, 3)
    const trained = (name: string) => isNewExpert(name) || isRouter(symbolic)(name)
    const cpt = await store(symbolic, { edit: perturb(5, 0.9, trained) })
    const [content, before, wanted] = await Promise.all(
      [pipe(cpt, graft({ base, post })), cpt, mixtureOf(post, 3)].map(contentOf),
    )
    for (const name of cpt.tensors.keys()) {
      if (isRouter(cpt)(name)) expect(content![name]).toBe(before![name])
      else if (!isNewExpert(name)) expect(content![name]).toBe(wanted![name])
      else expect(content![name]).not.toBe(before![name])
    }
  })

  it('one expert is the dense model (property 4)', async () => {
    const { base, post } = await pairOf(modelType)
    const cpt = await store(base, { edit: perturb(5, 0.9) })
    const dense = pipe(cpt, graft({ base, post, lambda: 0.7 }))
    const mixture = pipe(mixtureOf(cpt, 1), graft({ base, post, lambda: 0.7 }))
    const [a, b] = [await contentOf(mixtureOf(await store(dense), 1)), await contentOf(mixture)]
    expect(a).toEqual(b)
    expect(dense.config.model_type).toBe(modelType)
  })

  it('no delta, or lambda 0, leaves every byte of cpt (property 5)', async () => {
    const { base, post } = await pairOf(modelType)
    const cpt = await store(mixtureOf(base, 2), { edit: perturb(5, 0.9) })
    const content = await contentOf(cpt)
    expect(await contentOf(pipe(cpt, graft({ base, post: base })))).toEqual(content)
    const zero = pipe(cpt, graft({ base, post, lambda: 0 }))
    expect(await contentOf(zero)).toEqual(content)
    for (const [name, tensor] of zero.tensors) expect(tensor).toBe(cpt.tensors.get(name))
  })
})

describe('arithmetic', () => {
  it('is cpt + lambda (post - base) in F32, rounded once, with every factor in its place', async () => {
    const { base, post } = await pairOf('llama')
    const cpt = await store(mixtureOf(base, 2), { edit: perturb(5, 0.9) })
    await fc.assert(
      fc.asyncProperty(
        fc.tuple(...[0, 1, 2].map(() => fc.float({ min: -2, max: 2, noNaN: true }))),
        async (factors) => {
          const [lambda, expert1, layer1] = factors as [number, number, number]
          const settings = {
            lambda,
            expertLambda: new Map([[1, expert1]]),
            layerLambda: new Map([[1, layer1]]),
          }
          const output = pipe(cpt, graft({ base, post, ...settings }))
          const check = async (name: string, dense: string, by: number) => {
            const [c, b, i] = await Promise.all([
              valuesOf(cpt, name),
              valuesOf(base, dense),
              valuesOf(post, dense),
            ])
            const wanted = c!.map((x, at) => {
              if (i![at] === b![at]) return x
              if (by === 1 && x === b![at]) return i![at]!
              return roundToBf16(
                Math.fround(x + Math.fround(Math.fround(by) * Math.fround(i![at]! - b![at]!))),
              )
            })
            expect(await valuesOf(output, name)).toEqual(wanted)
          }
          const expert = (l: number, e: number) => `model.layers.${l}.block_sparse_moe.experts.${e}.w2.weight`
          const down = (l: number) => `model.layers.${l}.mlp.down_proj.weight`
          await check('model.norm.weight', 'model.norm.weight', lambda)
          await check(expert(0, 0), down(0), lambda)
          await check(expert(0, 1), down(0), lambda * expert1)
          await check(expert(1, 1), down(1), lambda * expert1 * layer1)
        },
      ),
      { numRuns: 10 },
    )
  })

  it.each(['BF16', 'F16', 'F32'] as const)(
    'is undone by swapping base and post, within 1 ulp (property 8, %s)',
    async (dtype) => {
      const { base, post } = await pairOf('llama', 3, dtype)
      const cpt = await store(mixtureOf(base, 2), { edit: perturb(5, 0.5) })
      const back = pipe(cpt, graft({ base, post }), (grafted) => graft({ base: post, post: base })(grafted))
      const fraction = { BF16: 7, F16: 10, F32: 23 }[dtype]
      for (const name of ['model.norm.weight', 'model.layers.1.self_attn.q_proj.weight']) {
        const all = await Promise.all([cpt, back, base, post].map((each) => valuesOf(each, name)))
        all[0]!.forEach((c, at) => {
          const largest = Math.max(...all.map((values) => Math.abs(values[at]!)))
          expect(Math.abs(all[1]![at]! - c)).toBeLessThanOrEqual(
            2 ** (Math.floor(Math.log2(largest)) - fraction),
          )
        })
      }
    },
  )

  it('gives permuted experts when experts and router rows are permuted (property 6)', async () => {
    const { base, post } = await pairOf('qwen3')
    const cpt = await store(mixtureOf(base, 3), { edit: perturb(5, 0.9) })
    const swap = (name: string) => name.replace(/experts\.([02])/, (_, e) => `experts.${2 - e}`)
    const permuted = (checkpoint: Checkpoint): Checkpoint => ({
      ...checkpoint,
      tensors: new Map(
        [...checkpoint.tensors.keys()].map((name) => [name, checkpoint.tensors.get(swap(name))!]),
      ),
    })
    const op = graft({ base, post })
    expect(await contentOf(op(permuted(cpt)))).toEqual(await contentOf(permuted(op(cpt))))
  })

  it('has N + (E-1) 3HI |S| + E H |S| parameters (property 9)', async () => {
    const { base, post } = await pairOf('llama')
    const count = ({ tensors }: Checkpoint) =>
      [...tensors.values()].reduce((sum, { shape }) => sum + numel(shape), 0)
    const grafted = pipe(mixtureOf(base, 4), graft({ base, post }))
    expect(count(grafted)).toBe(count(base) + 3 * 3 * 8 * 6 * 2 + 4 * 8 * 2)
  })

  it('does not depend on how its inputs are cut into files (property 10)', async () => {
    const { base, post } = await pairOf('llama')
    const cut = (checkpoint: Checkpoint) => store(checkpoint, { maxShardBytes: 700 })
    const cpt = await store(mixtureOf(base, 2), { edit: perturb(5, 0.9) })
    const sharded = pipe(await cut(cpt), graft({ base: await cut(base), post: await cut(post) }))
    const whole = pipe(cpt, graft({ base, post }))
    expect([...sharded.sources.values()][0]!.shards.size).toBeGreaterThan(2)
    expect(await contentOf(sharded)).toEqual(await contentOf(whole))
    expect(sharded.provenance).toEqual(whole.provenance)
  })

  it('is the same whether the mixture is stored in between or not', async () => {
    const { base, post } = await pairOf('qwen2')
    const symbolic = mixtureOf(base, 2)
    const noisy = new Map(symbolic.tensors)
    for (const [name, tensor] of noisy)
      if (isNewExpert(name)) {
        const noise = { op: 'random', distribution: 'normal', scale: 0.1, seed: 1, name } as const
        noisy.set(name, { ...tensor, expr: { op: 'add', args: [tensor.expr, noise] } })
      }
    const cpt = { ...symbolic, tensors: noisy }
    const op = graft({ base, post })
    expect(await contentOf(op(cpt))).toEqual(await contentOf(op(await store(cpt))))
  })

  it('adds the delta once to layers that were kept dense', async () => {
    const { base, post } = await pairOf('qwen3')
    const change = { mlp_only_layers: [0] }
    const grafted = pipe(
      mixtureOf(base, 2, { change }),
      graft({ base, post, expertLambda: new Map([[1, 0]]) }),
    )
    const content = await contentOf(grafted)
    const name = 'model.layers.0.mlp.up_proj.weight'
    expect(content[name]).toBe((await contentOf(post))[name])
    expect(Object.keys(content).filter((each) => each.includes('experts'))).toHaveLength(2 * 3)
  })

  it("keeps cpt's dtype, whatever the delta's", async () => {
    const { base } = await pairOf('llama', 1, 'F32')
    const post = await store(base, { edit: perturb(2, 0.5) })
    const cpt = mixtureOf((await pairOf('llama')).base, 2)
    for (const { dtype } of pipe(cpt, graft({ base, post })).tensors.values()) expect(dtype).toBe('BF16')
  })
})

describe('foldRouter', () => {
  it('scales routers by w_cpt / w_output, so that logits stay', async () => {
    const { base, post } = await pairOf('llama')
    const cpt = await store(mixtureOf(base, 3), { edit: perturb(5, 0.5) })
    const output = pipe(cpt, graft({ base, post, foldRouter: true, layerLambda: new Map([[1, 0]]) }))
    const norm = (l: number) => `model.layers.${l}.post_attention_layernorm.weight`
    const router = (l: number) => `model.layers.${l}.block_sparse_moe.gate.weight`
    const [before, after] = [await valuesOf(cpt, norm(0)), await valuesOf(await store(output), norm(0))]
    const [r, folded] = [await valuesOf(cpt, router(0)), await valuesOf(output, router(0))]
    expect(folded).not.toEqual(r)
    folded.forEach((value, at) => {
      expect(value).toBe(roundToBf16(Math.fround(r[at]! * Math.fround(before[at % 8]! / after[at % 8]!))))
    })
    // Where nothing was grafted there is nothing to fold.
    expect(output.tensors.get(router(1))).toBe(cpt.tensors.get(router(1)))
  })
})

describe('a stored delta', () => {
  it('gives what the pair gives, but where only base could tell', async () => {
    const { base, post } = await pairOf('llama')
    const cpt = await store(mixtureOf(base, 2), { edit: perturb(5, 1) })
    const delta = await store(createDelta({ base, post }))
    const options = { lambda: 0.75, expertLambda: new Map([[1, 0.5]]) }
    const [a, b] = [pipe(cpt, graft({ base, post, ...options })), pipe(cpt, graft({ delta, ...options }))]
    expect(await contentOf(b)).toEqual(await contentOf(a))
    expect(b.config).toEqual(a.config)
    expect(b.provenance.recipe.at(-1)).toMatchObject({
      op: 'graft',
      lambda: 0.75,
      expertLambda: { 1: 0.5 },
      inputs: { base: [...base.sources.keys()][0], post: [...post.sources.keys()][0] },
    })
  })

  it('of nothing leaves every byte, negative zeros too', async () => {
    const { base } = await pairOf('llama')
    const zeros = await store(mixtureOf(base, 2), {
      edit: (_, bytes) => bytes.set(bytes.map((_, i) => (i % 2 ? 0x80 : 0))),
    })
    const delta = await store(createDelta({ base, post: base }))
    expect(await contentOf(pipe(zeros, graft({ delta })))).toEqual(await contentOf(zeros))
  })
})

describe('provenance', () => {
  it('records the step, keeps what was before, and says what was skipped', async () => {
    const { base, post } = await pairOf('llama')
    const cpt = mixtureOf(base, 2)
    const buffer = 'model.layers.0.self_attn.rotary_emb.inv_freq'
    const withBuffer = {
      ...post,
      tensors: new Map([...post.tensors, [buffer, post.tensors.get('model.norm.weight')!]]),
    }
    const labelled = { ...cpt, provenance: { ...cpt.provenance, experts: ['original', 'el'] } }
    const { provenance, tensors } = pipe(labelled, graft({ base, post: withBuffer }))
    expect(tensors.has(buffer)).toBe(false)
    expect(provenance.skipped).toEqual([{ tensor: buffer, reason: expect.stringContaining('(post)') }])
    expect(provenance.experts).toEqual(['original', 'el'])
    expect(provenance.recipe.map(({ op }) => op)).toEqual(['upcycle', 'graft'])
    expect(JSON.parse(JSON.stringify(provenance))).toEqual(provenance)
  })

  it('gives bytesOf nothing to read', async () => {
    const { base, post } = await pairOf('llama')
    const output = pipe(mixtureOf(base, 2), graft({ base, post }))
    expect(await bytesOf(output, 'model.norm.weight')).toEqual(await bytesOf(post, 'model.norm.weight'))
  })
})
