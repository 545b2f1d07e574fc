import { expectedTensors, familyOf } from '@polygraft/architectures'
import { evaluate, measureStatistics } from '@polygraft/engine'
import { type Checkpoint, type JsonObject, literal, numel, type Tensor } from '@polygraft/tensor'
import { dropTargets, type UpcycleOptions, upcycle, upcycleProblems } from '@polygraft/upcycle'
import { describe, expect, it } from 'vitest'

const SIZES = {
  vocab_size: 3,
  hidden_size: 2,
  intermediate_size: 4,
  num_hidden_layers: 2,
  num_attention_heads: 1,
}

/** Element i of every tensor is i + 1 + `offset`, of F32. */
function counting(modelType: string, offset = 0, change: JsonObject = {}): Checkpoint {
  const config = { model_type: modelType, ...SIZES, ...change }
  const tensors = [...expectedTensors(familyOf(config), config)].map(([name, shape]): [string, Tensor] => {
    const values = Float32Array.from({ length: numel(shape) }, (_, i) => i + 1 + offset)
    return [name, { dtype: 'F32', shape, expr: literal(values) }]
  })
  const provenance = { recipe: [], skipped: [] }
  return { config, tensors: new Map(tensors), files: new Map(), sources: new Map(), provenance }
}

async function valuesOf({ tensors, sources }: Checkpoint, name: string): Promise<readonly number[]> {
  const tensor = tensors.get(name)
  if (!tensor) throw new Error(`no ${name} among ${[...tensors.keys()].join(', ')}`)
  return [...new Float32Array((await evaluate(tensor, sources)).buffer)]
}

describe('values', () => {
  it('granularity cuts rows of gate and up, columns of down, and scales down by it', async () => {
    const moe = upcycle({ experts: 2, granularity: 2 })(counting('llama'))
    expect(moe.config).toMatchObject({ num_local_experts: 4, num_experts_per_tok: 4, intermediate_size: 2 })
    const expert = (e: number, w: string) =>
      valuesOf(moe, `model.layers.1.block_sparse_moe.experts.${e}.${w}.weight`)
    for (const whole of [0, 2]) {
      for (const w of ['w1', 'w3']) {
        expect(await expert(whole, w)).toEqual([1, 2, 3, 4])
        expect(await expert(whole + 1, w)).toEqual([5, 6, 7, 8])
      }
      // down is [[1, 2, 3, 4], [5, 6, 7, 8]].
      expect(await expert(whole, 'w2')).toEqual([2, 4, 10, 12])
      expect(await expert(whole + 1, 'w2')).toEqual([6, 8, 14, 16])
    }
    const router = await valuesOf(moe, 'model.layers.1.block_sparse_moe.gate.weight')
    expect(router.slice(0, 2)).toEqual(router.slice(2, 4))
    expect(router.slice(4, 6)).toEqual(router.slice(6, 8))
    expect(router.slice(0, 2)).not.toEqual(router.slice(4, 6))
  })

  it('denseLayers keep their block, and have no router', async () => {
    const moe = upcycle({ experts: 2, target: 'qwen2_moe', denseLayers: [0] })(counting('llama'))
    expect(moe.config.mlp_only_layers).toEqual([0])
    expect(await valuesOf(moe, 'model.layers.0.mlp.down_proj.weight')).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
    expect([...moe.tensors.keys()].filter((name) => /layers\.0\.mlp\./.test(name))).toHaveLength(3)
    expect(moe.tensors.has('model.layers.1.mlp.gate.weight')).toBe(true)
    expect(moe.tensors.has('model.layers.1.mlp.up_proj.weight')).toBe(false)
  })

  it('a derived shared expert is the block, its gate is zero, and the routed experts take the other half', async () => {
    const moe = upcycle({ experts: 2, sharedExpert: 'derived' })(counting('qwen2'))
    const at = (name: string) => valuesOf(moe, `model.layers.0.mlp.${name}.weight`)
    for (const part of ['gate_proj', 'up_proj', 'down_proj'])
      expect(await at(`shared_expert.${part}`)).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
    expect(await at('shared_expert_gate')).toEqual([0, 0])
    expect(await at('experts.1.gate_proj')).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
    expect(await at('experts.1.down_proj')).toEqual([0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4])
  })

  it('Granite holds all experts in two tensors, gate before up', async () => {
    const moe = upcycle({ experts: 2, granularity: 2, target: 'granitemoe' })(counting('llama'))
    const at = (name: string) => valuesOf(moe, `model.layers.0.block_sparse_moe.${name}.weight`)
    const copy = [1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8, 5, 6, 7, 8]
    expect(moe.tensors.get('model.layers.0.block_sparse_moe.input_linear.weight')!.shape).toEqual([4, 4, 2])
    expect(await at('input_linear')).toEqual([...copy, ...copy])
    const down = [2, 4, 10, 12, 6, 8, 14, 16]
    expect(await at('output_linear')).toEqual([...down, ...down])
  })

  it('expertsFrom takes whole blocks from other models, others their mean', async () => {
    const [base, other] = [counting('llama'), counting('llama', 10)]
    const expertsFrom = new Map([[1, other]])
    const moe = upcycle({ experts: 3, expertsFrom })(base)
    const up = (e: number) => valuesOf(moe, `model.layers.0.block_sparse_moe.experts.${e}.w3.weight`)
    expect(await up(0)).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
    expect(await up(1)).toEqual([11, 12, 13, 14, 15, 16, 17, 18])
    expect(await up(2)).toEqual(await up(0))
    expect(await valuesOf(moe, 'model.norm.weight')).toEqual([1, 2])
    const mean = upcycle({ experts: 3, expertsFrom, others: 'mean' })(base)
    // Of models, not of experts: (1 + 11) / 2.
    expect(await valuesOf(mean, 'model.norm.weight')).toEqual([6, 7])
  })
})

describe('drop', () => {
  const base = counting('llama', 0, { intermediate_size: 16 })
  const wanted: UpcycleOptions = { experts: 3, expertInit: { kind: 'drop', rate: 0.25 }, seed: 4 }
  const measured = async (checkpoint: Checkpoint): Promise<UpcycleOptions> => {
    const statistics = await measureStatistics(dropTargets(checkpoint, wanted), checkpoint.sources)
    return { ...wanted, expertInit: { kind: 'drop', rate: 0.25, statistics } }
  }
  const expert = (moe: Checkpoint, e: number, w: string) =>
    valuesOf(moe, `model.layers.1.block_sparse_moe.experts.${e}.${w}.weight`)
  /** Neurons with an entry that is not the base's. */
  const redrawnIn = async (moe: Checkpoint, e: number, w: string) => {
    const values = await expert(moe, e, w)
    const neurons = values.flatMap((value, i) =>
      value === i + 1 ? [] : [w === 'w2' ? i % 16 : Math.floor(i / 2)],
    )
    return [...new Set(neurons)].sort((a, b) => a - b)
  }

  it('redraws the same neurons in the three matrices, others in each copy, none in the first', async () => {
    const moe = upcycle(await measured(base))(base)
    const sets = await Promise.all([0, 1, 2].map((e) => redrawnIn(moe, e, 'w1')))
    expect(sets.map(({ length }) => length)).toEqual([0, 4, 4])
    expect(sets[1]).not.toEqual(sets[2])
    for (const e of [0, 1, 2])
      for (const w of ['w3', 'w2']) expect(await redrawnIn(moe, e, w)).toEqual(sets[e])
  })

  it('draws with the mean and deviation of what it replaces', async () => {
    const moe = upcycle(await measured(base))(base)
    const { moments } = moe.provenance.recipe[0]!.expertInit as { moments: Record<string, [number, number]> }
    const neurons = await redrawnIn(moe, 2, 'w1')
    const replaced = neurons.flatMap((neuron) => [2 * neuron + 1, 2 * neuron + 2])
    const mean = replaced.reduce((sum, value) => sum + value, 0) / 8
    const std = Math.sqrt(replaced.reduce((sum, value) => sum + (value - mean) ** 2, 0) / 8)
    const [recordedMean, recordedStd] = moments['model.layers.1.mlp.gate_proj.weight of copy 2']!
    expect(recordedMean).toBe(mean)
    expect(recordedStd).toBeCloseTo(std, 10)
    const drawn = (await expert(moe, 2, 'w1')).filter((value, i) => value !== i + 1)
    for (const value of drawn) expect(Math.abs(value - mean)).toBeLessThan(6 * std)
  })

  it('needs to have been measured, and finite entries', async () => {
    expect(() => upcycle(wanted)(base)).toThrow('have not been measured')
    const name = 'model.layers.0.mlp.up_proj.weight'
    const broken = literal(new Float32Array(32).fill(Number.POSITIVE_INFINITY))
    const tensors = new Map([...base.tensors, [name, { ...base.tensors.get(name)!, expr: broken }]])
    const infinite = { ...base, tensors }
    const options = await measured(infinite)
    expect(() => upcycle(options)(infinite)).toThrow('infinite or NaN')
  })
})

describe('options that do not fit', () => {
  const problems = (options: UpcycleOptions, base = counting('llama')) =>
    upcycleProblems(base, { experts: 2, ...options }).map(({ code, message }) => `${code}: ${message}`)

  it.each<[UpcycleOptions, string]>([
    [{ granularity: 3 }, 'bad-option: The feed-forward block cannot be cut'],
    [{ granularity: 0.5 }, 'bad-option: Option granularity'],
    [{ denseLayers: [0] }, 'target-cannot-hold: mixtral has experts in every layer'],
    [{ denseLayers: [0, 1], target: 'qwen2_moe' }, 'bad-option: Every layer'],
    [{ sharedExpert: 'derived' }, 'target-cannot-hold: mixtral has no shared expert'],
    [{ others: 'mean' }, 'bad-option: Option others'],
    [{ expertsFrom: new Map([[2, counting('llama')]]) }, 'bad-option: Option expertsFrom'],
    [{ expertsFrom: new Map([[1, counting('qwen2')]]) }, 'family-mismatch: The model of expert 1'],
    [{ expertInit: { kind: 'drop', rate: 0 } }, 'bad-option: Option expertInit'],
  ])('%o', (options, expected) => {
    expect(problems(options).find((problem) => problem.startsWith(expected))).toBeDefined()
  })

  it('a mean of vocabularies of different sizes', () => {
    const expertsFrom = new Map([[1, counting('llama', 0, { vocab_size: 4 })]])
    expect(problems({ expertsFrom })).toEqual([])
    expect(problems({ expertsFrom, others: 'mean' })).toHaveLength(2)
  })
})
