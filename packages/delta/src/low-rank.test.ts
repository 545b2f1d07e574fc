import {
  applyDelta,
  createAdapter,
  createDelta,
  lowRankTargets,
  readAdapter,
  readVocabularies,
  scalingOf,
  truncateDelta,
} from '@polygraft/delta'
import { type Checkpoint, pipe } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'
import { checkpointOf, tinyModel, valuesOf } from '../test/memory.js'

const Q = 'model.layers.0.self_attn.q_proj' // [4, 4]
const UP = 'model.layers.0.mlp.up_proj' // [3, 4]
const EMBEDDING = 'model.embed_tokens' // [6, 4]
// In the order of a layer's tensors.
const MODULES = [
  'self_attn.q_proj',
  'self_attn.k_proj',
  'self_attn.v_proj',
  'self_attn.o_proj',
  'mlp.gate_proj',
  'mlp.up_proj',
  'mlp.down_proj',
]

const [base, post] = [tinyModel(1), tinyModel(2)]
const delta = createDelta({ base, post })
/** Any factors do for these tests; the engine finds the right ones. */
const factorsOf = (rows: number, width: number, rank: number) => ({
  rank,
  up: Float32Array.from({ length: rows * rank }, (_, i) => (i % 5) - 2),
  down: Float32Array.from({ length: rank * width }, (_, i) => (i % 3) - 1),
  squares: 1,
  energy: 1,
})
const product = (rows: number, width: number, rank: number) => {
  const { up, down } = factorsOf(rows, width, rank)
  return Array.from({ length: rows * width }, (_, at) => {
    let sum = 0
    for (let k = 0; k < rank; k++)
      sum += up[Math.floor(at / width) * rank + k]! * down[k * width + (at % width)]!
    return sum
  })
}
const configOf = async (adapter: Checkpoint) =>
  JSON.parse(new TextDecoder().decode(await adapter.files.get('adapter_config.json')!.arrayBuffer()))

describe('lowRankTargets', () => {
  it('takes the matrices of attention and feed-forward, as F32', () => {
    const targets = lowRankTargets({ delta, rank: 2, energy: 0.5 })
    expect([...targets.keys()]).toEqual(
      MODULES.map((module) => `model.layers.0.${module}.weight`).filter((name) => delta.tensors.has(name)),
    )
    expect(targets.size).toBe(7)
    const { tensor, rank, energy } = targets.get(`${Q}.weight`)!
    expect([tensor.dtype, tensor.shape, rank, energy]).toEqual(['F32', [4, 4], 2, 0.5])
    expect(valuesOf(tensor)).toEqual(valuesOf(delta.tensors.get(`${Q}.weight`)))
  })

  it('takes what is named, and all matrices where the family is unknown', () => {
    const named = lowRankTargets({ delta, rank: 1, targets: ['q_proj', 'lm_head'] })
    expect([...named.keys()].sort()).toEqual(['lm_head.weight', `${Q}.weight`])
    const matrix = (values: number[]) =>
      checkpointOf({ 'x.weight': { shape: [2, 2], values }, 'y.weight': { shape: [4], values } })
    const unknown = createDelta({ base: matrix([1, 2, 3, 4]), post: matrix([1, 0, 0, 1]) })
    expect([...lowRankTargets({ delta: unknown, rank: 1 }).keys()]).toEqual(['x.weight'])
  })

  it('refuses unknown names, ranks and shares, and rows that are no differences', async () => {
    expect(() => lowRankTargets({ delta, rank: 0, energy: 2, targets: ['q', 'up_proj', 'norm'] })).toThrow(
      /bad-rank[\s\S]*bad-energy[\s\S]*called q [\s\S]*q_proj[\s\S]*called norm/,
    )
    const tokenizer = (...names: string[]) => ({
      'tokenizer.json': JSON.stringify({
        model: { vocab: Object.fromEntries(names.map((name, id) => [name, id])) },
      }),
    })
    const [old, more] = [tinyModel(1, {}, tokenizer('a')), tinyModel(2, {}, tokenizer('a', 'b'))]
    const grown = createDelta({
      base: old,
      post: more,
      vocabularies: await readVocabularies({ base: old, post: more }),
    })
    expect(() => lowRankTargets({ delta: grown, rank: 1, targets: ['lm_head'] })).toThrow('not-a-difference')
    expect(lowRankTargets({ delta: grown, rank: 1 }).size).toBe(7)
  })
})

describe('truncateDelta', () => {
  it('is a delta like any other: theta_b + beta Delta_r', () => {
    const factors = new Map([
      [`${Q}.weight`, factorsOf(4, 4, 2)],
      [`${UP}.weight`, factorsOf(3, 4, 0)],
    ])
    const truncated = truncateDelta(delta, factors)
    const applied = pipe(base, applyDelta({ delta: truncated, lambda: 0.5 }))
    const values = (name: string, of: Checkpoint) => valuesOf(of.tensors.get(`${name}.weight`))
    expect(values(Q, applied)).toEqual(values(Q, base).map((x, i) => x + 0.5 * product(4, 4, 2)[i]!))
    expect(values(UP, applied)).toEqual(values(UP, base))
    expect(values('lm_head', applied)).toEqual(
      values('lm_head', base).map((x, i) => x + 0.5 * values('lm_head', delta)[i]!),
    )
    expect(truncated.provenance.recipe.at(-1)).toEqual({
      op: 'truncate',
      ranks: { [`${Q}.weight`]: 2, [`${UP}.weight`]: 0 },
    })
  })

  it('refuses factors of other matrices', () => {
    const factors = new Map([
      [`${Q}.weight`, factorsOf(4, 3, 2)],
      ['none', factorsOf(1, 1, 1)],
    ])
    expect(() => truncateDelta(delta, factors)).toThrow(/shape-mismatch[\s\S]*unknown-module/)
  })
})

describe('createAdapter', () => {
  it('writes the factors under names of peft, and a configuration that it reads', async () => {
    const factors = new Map([
      [`${Q}.weight`, factorsOf(4, 4, 2)],
      [`${UP}.weight`, factorsOf(3, 4, 1)],
      ['model.layers.0.self_attn.v_proj.weight', factorsOf(2, 4, 2)],
      ['model.layers.0.self_attn.k_proj.weight', factorsOf(2, 4, 0)],
    ])
    const adapter = createAdapter({ delta, factors, dtype: 'BF16', base: 'org/base' })
    expect([...adapter.tensors].map(([name, { dtype, shape }]) => [name, dtype, shape]).slice(0, 2)).toEqual([
      [`base_model.model.${Q}.lora_A.weight`, 'BF16', [2, 4]],
      [`base_model.model.${Q}.lora_B.weight`, 'BF16', [4, 2]],
    ])
    expect([adapter.tensors.size, adapter.weightsName, adapter.config]).toEqual([6, 'adapter_model', {}])
    const config = await configOf(adapter)
    expect(config).toMatchObject({
      r: 2,
      lora_alpha: 2,
      target_modules: ['q_proj', 'up_proj', 'v_proj'],
      base_model_name_or_path: 'org/base',
    })
    expect(config.rank_pattern).toEqual(config.alpha_pattern)
    const read = await readAdapter(adapter)
    for (const [module, rank] of [
      [Q, 2],
      [UP, 1],
    ] as const)
      expect(scalingOf(read.config, module)).toEqual({ rank, scaling: 1 })
    // Of a layer 10 nothing is said.
    expect(scalingOf(read.config, UP.replace('0', '10')).rank).toBe(2)
  })

  it('names whole modules where their last parts would name others', async () => {
    const two = ['a.p', 'b.p']
    const of = (from: number) =>
      checkpointOf(
        Object.fromEntries(
          two.map((name, i) => [`${name}.weight`, { shape: [2, 2], values: [i, from, 1, 2] }]),
        ),
      )
    const adapter = createAdapter({
      delta: createDelta({ base: of(1), post: of(2) }),
      factors: new Map([['a.p.weight', factorsOf(2, 2, 1)]]),
    })
    expect((await configOf(adapter)).target_modules).toEqual(['a.p'])
  })

  it('turns the factors of an embedding, as peft stores them', () => {
    const factors = new Map([[`${EMBEDDING}.weight`, factorsOf(6, 4, 2)]])
    const { tensors } = createAdapter({ delta, factors })
    const { up, down } = factorsOf(6, 4, 2)
    const [a, b] = ['A', 'B'].map((name) =>
      tensors.get(`base_model.model.${EMBEDDING}.lora_embedding_${name}`),
    )
    expect([a!.shape, b!.shape]).toEqual([
      [2, 6],
      [4, 2],
    ])
    expect(valuesOf(a)).toEqual(Array.from({ length: 12 }, (_, i) => up[(i % 6) * 2 + Math.floor(i / 6)]))
    expect(valuesOf(b)).toEqual(Array.from({ length: 8 }, (_, i) => down[(i % 2) * 4 + Math.floor(i / 2)]))
  })

  it('refuses a delta without differences', () => {
    expect(() => createAdapter({ delta, factors: new Map([[`${Q}.weight`, factorsOf(4, 4, 0)]]) })).toThrow(
      'nothing-to-adapt',
    )
  })
})
