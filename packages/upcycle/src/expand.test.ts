import { configDifferences, expectedTensors, familyOf, windowsOf } from '@polygraft/architectures'
import { collapsedConfig, readExpansion } from '@polygraft/experts'
import { literal, numel, read } from '@polygraft/tensor'
import { expand, expandProblems, upcycle } from '@polygraft/upcycle'
import { describe, expect, it } from 'vitest'
import { syntheticCheckpoint, tinyConfig } from '../test/synthetic.js'

const dense = (modelType: string, change = {}) => syntheticCheckpoint(tinyConfig(modelType, change))
const zeros = (count: number) => ({
  op: 'spread',
  arg: literal(Float32Array.of(0)),
  count: 1,
  each: count,
  times: 1,
})

describe.each(['llama', 'mistral', 'qwen2', 'qwen3'])('expand (%s)', (modelType) => {
  const base = dense(modelType, { num_hidden_layers: 4 })
  const { config, tensors, provenance } = expand({ blocks: 2 })(base)

  it('inserts a layer after each group of layers, and records where', () => {
    expect(config.num_hidden_layers).toBe(6)
    expect(provenance.recipe).toEqual([
      { op: 'expand', inputs: { base: 'synthetic' }, after: [1, 3], layers: 4 },
    ])
    expect(readExpansion(provenance.recipe).layers).toEqual([0, 1, null, 2, 3, null])
    expect([...tensors.keys()]).toEqual([...expectedTensors(familyOf(config), config).keys()])
  })

  it('copies what there is, and lets inserted layers add nothing', () => {
    const from = [0, 1, 1, 2, 3, 3]
    for (const [name, { expr, shape, dtype }] of tensors) {
      const layer = Number(/layers\.(\d+)/.exec(name)?.[1] ?? -1)
      const isZero = (layer === 2 || layer === 5) && /\.(o_proj|down_proj)\./.test(name)
      const source = name.replace(/layers\.\d+/, `layers.${from[layer]}`)
      expect(expr, name).toEqual(isZero ? zeros(numel(shape)) : read('synthetic', source))
      expect(dtype).toBe('BF16')
    }
  })

  it('without the inserted layers has the config of the base', () => {
    const collapsed = collapsedConfig(config, readExpansion(provenance.recipe))
    expect(configDifferences(base.config, collapsed)).toEqual([])
  })
})

describe('expand', () => {
  const layersOf = (count: number, blocks: number) =>
    readExpansion(expand({ blocks })(dense('llama', { num_hidden_layers: count })).provenance.recipe).layers

  it('spreads layers evenly, however many', () => {
    expect(layersOf(5, 2)).toEqual([0, 1, 2, null, 3, 4, null])
    expect(layersOf(2, 2)).toEqual([0, null, 1, null])
    expect(layersOf(2, 3)).toEqual([0, null, 1, null, null])
    expect(layersOf(1, 2)).toEqual([0, null, null])
  })

  it('twice, and then upcycled, says of every layer where it comes from', () => {
    const twice = expand({ blocks: 1 })(expand({ blocks: 2 })(dense('llama')))
    const { recipe } = upcycle({ experts: 2 })(twice).provenance
    expect(readExpansion(recipe).layers).toEqual([0, null, 1, null, null])
  })

  it('biases of output projections are zero too', () => {
    const biased = dense('llama', { attention_bias: true, mlp_bias: true })
    const { tensors } = expand({ blocks: 1 })(biased)
    const at = (name: string) => tensors.get(`model.layers.2.${name}`)!.expr
    expect(at('self_attn.o_proj.bias')).toEqual(zeros(8))
    expect(at('mlp.down_proj.bias')).toEqual(zeros(8))
    expect(at('self_attn.q_proj.bias')).toEqual(read('synthetic', 'model.layers.1.self_attn.q_proj.bias'))
    expect(at('mlp.up_proj.bias')).toEqual(read('synthetic', 'model.layers.1.mlp.up_proj.bias'))
  })

  it.each([
    [{ max_window_layers: 1 }, [null, null, 8, 8]],
    [{ max_window_layers: 2 }, [null, null, null, null]],
    [{ max_window_layers: 0 }, [8, 8, 8, 8]],
    [{ layer_types: ['sliding_attention', 'full_attention'] }, [8, 8, null, null]],
  ])('every layer keeps its window (%j)', (change, windows) => {
    const base = dense('qwen2', { use_sliding_window: true, sliding_window: 8, ...change })
    const { config, provenance } = expand({ blocks: 2 })(base)
    expect(windowsOf(familyOf(config), config, 4)).toEqual(windows)
    const collapsed = collapsedConfig(config, readExpansion(provenance.recipe))
    expect(configDifferences(base.config, collapsed)).toEqual([])
  })

  it('refuses what it cannot do, all together', () => {
    const codes = (...args: Parameters<typeof expandProblems>) =>
      expandProblems(...args).map(({ code }) => code)
    const base = dense('llama')
    for (const blocks of [0, 1.5, Number.NaN, 1e9]) expect(codes(base, { blocks })).toEqual(['bad-option'])
    expect(codes(upcycle({ experts: 2 })(base), { blocks: 1 })).toEqual(['already-moe'])
    const delta = { ...base, provenance: { recipe: [{ op: 'delta' }], skipped: [] } }
    const broken = { ...delta, tensors: new Map([...delta.tensors].slice(1)) }
    expect(codes(broken, { blocks: 0 })).toEqual(['is-delta', 'bad-option', 'missing-tensor'])
    expect(codes({ ...base, config: { model_type: 'bert' } }, { blocks: 1 })).toEqual(['unsupported-family'])
    expect(() => expand({ blocks: 0 })(base)).toThrow('blocks')
  })

  it('leaves buffers behind, and says so', () => {
    const base = dense('llama')
    const name = 'model.layers.0.self_attn.rotary_emb.inv_freq'
    const tensors = new Map([...base.tensors, [name, { ...base.tensors.get('model.norm.weight')! }]])
    const { provenance } = expand({ blocks: 1 })({ ...base, tensors })
    expect(provenance.skipped).toEqual([{ tensor: name, reason: expect.stringContaining('buffer') }])
  })
})

describe('expand with allow', () => {
  it('leaves out what has no place, and records it', () => {
    const base = dense('llama')
    const tensors = new Map([...base.tensors, ['score.weight', base.tensors.get('model.norm.weight')!]])
    const given = { ...base, tensors }
    expect(expandProblems(given, { blocks: 1 }).map(({ code }) => code)).toEqual(['unexpected-tensor'])
    const allow = [{ tensors: 'score', reason: 'a head for ranking' }]
    const { provenance } = expand({ blocks: 1, allow })(given)
    expect(provenance.skipped).toEqual([{ tensor: 'score.weight', reason: 'a head for ranking (base)' }])
    expect(provenance.recipe[0]!.allow).toEqual(allow)
  })
})
