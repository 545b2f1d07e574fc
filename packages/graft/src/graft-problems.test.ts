import { createDelta } from '@polygraft/delta'
import { type GraftOptions, type GraftSettings, graft, graftProblems, graftWarnings } from '@polygraft/graft'
import type { Checkpoint, Tensor } from '@polygraft/tensor'
import { beforeAll, describe, expect, it } from 'vitest'
import { contentOf, denseModel, mixtureOf, perturb, store } from '../test/models.js'

let base: Checkpoint
let post: Checkpoint
let cpt: Checkpoint
beforeAll(async () => {
  base = await denseModel('llama', 1)
  post = await store(base, { edit: perturb(2, 0.5) })
  cpt = mixtureOf(base, 3)
})

const codes = (options: Partial<GraftOptions> = {}, onto = cpt) =>
  graftProblems(onto, { base, post, ...options } as GraftOptions).map(({ code }) => code)
const withTensors = (checkpoint: Checkpoint, change: (tensors: Map<string, Tensor>) => void): Checkpoint => {
  const tensors = new Map(checkpoint.tensors)
  change(tensors)
  return { ...checkpoint, tensors }
}
const withConfig = (checkpoint: Checkpoint, config: Checkpoint['config']): Checkpoint => ({
  ...checkpoint,
  config: { ...checkpoint.config, ...config },
})
const edit = (tensors: Map<string, Tensor>, name: string, change: Partial<Tensor>) =>
  tensors.set(name, { ...tensors.get(name)!, ...change })

describe('graftProblems', () => {
  it('finds nothing where all is well', () => {
    expect(codes()).toEqual([])
  })

  it('lists every kind together, for all three checkpoints', () => {
    const norm = 'model.norm.weight'
    const broken = {
      base: withTensors(withConfig(base, { rms_norm_eps: 1 }), (tensors) => tensors.delete(norm)),
      post: withTensors(post, (tensors) => {
        edit(tensors, 'model.layers.0.mlp.up_proj.weight', { dtype: 'I8' })
        tensors.set('lora_A', tensors.get(norm)!)
      }),
    }
    const expert = 'model.layers.1.block_sparse_moe.experts.2.w2.weight'
    const onto = withTensors(cpt, (tensors) => edit(tensors, expert, { shape: [6, 8] }))
    const settings: GraftSettings = {
      lambda: Number.NaN,
      expertLambda: new Map([[3, 1]]),
      layerLambda: new Map([[-1, 1]]),
    }
    const problems = graftProblems(onto, { ...broken, ...settings })
    expect(problems.map(({ code, tensor }) => (tensor ? `${code} ${tensor}` : code))).toEqual([
      'bad-lambda',
      'unknown-expert',
      'unknown-layer',
      'config-mismatch',
      'config-mismatch',
      `shape-mismatch ${expert}`,
      `missing-tensor ${norm}`,
      'not-float model.layers.0.mlp.up_proj.weight',
      'unexpected-tensor lora_A',
    ])
    for (const problem of problems)
      expect(`${problem.message} ${problem.expected ?? ''}`).not.toContain('undefined')
    expect(() => graft({ ...broken, ...settings })(onto)).toThrow(/bad-lambda[\s\S]*lora_A/)
  })

  it('guards configs, and lets them pass when forced as long as shapes agree', async () => {
    const other = withConfig(post, { rope_theta: 7 })
    expect(codes({ post: other })).toEqual(['config-mismatch'])
    expect(codes({ post: other, force: true })).toEqual([])
    const wider = await denseModel('llama', 1, { config: { intermediate_size: 7 } })
    const forced = graftProblems(cpt, { base: wider, post: wider, force: true })
    expect(new Set(forced.map(({ code }) => code))).toEqual(new Set(['shape-mismatch']))
    expect(forced).toHaveLength(2 * 3 * 3)
    expect(new Set(codes({ base: wider, force: true }))).toEqual(new Set(['shape-mismatch']))
  })

  it('does not pass over a tensor that only one of base and post has', async () => {
    const biased = await denseModel('llama', 1, { config: { attention_bias: true } })
    const forced = graftProblems(cpt, { base, post: biased, force: true })
    expect(forced).toHaveLength(2 * 4)
    expect(forced[0]).toMatchObject({
      code: 'missing-tensor',
      tensor: 'model.layers.0.self_attn.k_proj.bias',
    })
    const both = graftProblems(cpt, { base: biased, post: biased, force: true })
    expect(both.map(({ code }) => code)).toEqual(new Array(8).fill('unexpected-tensor'))
  })

  it('names families that do not go together', async () => {
    const qwen = await denseModel('qwen3', 1)
    expect(codes({ base: qwen, post: qwen })).toEqual(['family-mismatch'])
    expect(codes({ post: await denseModel('mistral', 1) })).toEqual(['family-mismatch'])
    expect(codes({ base: cpt, post: cpt })).toEqual(['family-mismatch'])
    expect(codes({}, withConfig(cpt, { model_type: 'gemma2' }))).toEqual(['unsupported-family'])
  })

  it('refuses quantised checkpoints', () => {
    expect(codes({ base: withConfig(base, { quantization_config: { bits: 4 } }) })).toEqual(['quantised'])
  })

  it('checks that the delta was taken from the base that cpt was upcycled from', async () => {
    const delta = createDelta({ base, post })
    expect(graftProblems(cpt, { delta })).toEqual([])
    const other = await denseModel('llama', 9)
    const foreign = createDelta({ base: other, post })
    expect(graftProblems(cpt, { delta: foreign }).map(({ code }) => code)).toEqual(['delta-base-mismatch'])
    expect(graftProblems(cpt, { delta: foreign, force: true })).toEqual([])
    const unknown = { ...cpt, provenance: { recipe: [], skipped: [] } }
    expect(graftProblems(unknown, { delta: foreign })).toEqual([])
    expect(graftProblems(cpt, { delta: post }).map(({ code }) => code)).toEqual(['not-a-delta'])
  })

  it('sees base and post the wrong way round, and the same delta twice', async () => {
    expect(codes({ base: post, post: base }, cpt)).toEqual(['base-post-swapped'])
    expect(graftProblems(cpt, { base: post, post: base, force: true })).toEqual([])
    const grafted = graft({ base, post })(cpt)
    expect(codes({ base, post }, grafted)).toEqual(['already-grafted'])
    expect(codes({ base: post, post: base }, grafted)).toEqual([])
  })

  it('warns of another base, and takes no delta for a model', async () => {
    const other = await denseModel('llama', 9)
    expect(graftWarnings(cpt, { base, post })).toEqual([])
    expect(graftWarnings(cpt, { base: other, post }).map(({ code }) => code)).toEqual(['base-mismatch'])
    const delta = createDelta({ base, post })
    expect(codes({ base: delta, post }, cpt)).toContain('is-delta')
    expect(codes({ base, post }, delta)).toContain('is-delta')
  })

  it('does not guess what a shared expert as large as the dense block is', async () => {
    const dense = await denseModel('qwen2', 1)
    const placeholder = mixtureOf(dense, 2)
    expect(codes({ base: dense, post: dense }, placeholder)).toEqual([])
    const derived = withTensors(
      withConfig(placeholder, { shared_expert_intermediate_size: 6 }),
      (tensors) => {
        for (const name of tensors.keys())
          if (name.includes('shared_expert.'))
            tensors.set(name, dense.tensors.get(name.replace('shared_expert.', ''))!)
      },
    )
    const instruct = await store(dense, { edit: perturb(2, 0.5) })
    const pair = { base: dense, post: instruct }
    expect(codes(pair, derived)).toEqual(['shared-expert-unknown'])
    const name = 'model.layers.0.mlp.shared_expert.up_proj.weight'
    const content = async (sharedExpert: 'derived' | 'placeholder') =>
      (await contentOf(graft({ ...pair, sharedExpert })(derived)))[name]
    expect(await content('placeholder')).toBe((await contentOf(derived))[name])
    expect(await content('derived')).toBe((await contentOf(instruct))['model.layers.0.mlp.up_proj.weight'])
  })

  it('knows no expert of a dense cpt', () => {
    expect(codes({ expertLambda: new Map([[0, 1]]) }, base)).toEqual(['unknown-expert'])
  })
})
