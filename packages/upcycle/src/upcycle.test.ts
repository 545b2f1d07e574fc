import {
  countParameters,
  denseName,
  expectedTensors,
  familyOf,
  roleOf,
  tensorProblems,
} from '@polygraft/architectures'
import { gateTopK, gateTopKRenormalized } from '@polygraft/routing'
import {
  type Checkpoint,
  type Expr,
  literal,
  ModelError,
  numel,
  read,
  reads,
  type Tensor,
} from '@polygraft/tensor'
import { type UpcycleOptions, upcycle, upcycleProblems, upcycleWarnings } from '@polygraft/upcycle'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { syntheticCheckpoint, tinyConfig } from '../test/synthetic.js'

const FAMILIES = ['llama', 'mistral', 'qwen2', 'qwen3'] as const
const dense = (modelType: string, change = {}) => syntheticCheckpoint(tinyConfig(modelType, change))
const withTensors = (checkpoint: Checkpoint, change: (tensors: Map<string, Tensor>) => void): Checkpoint => {
  const tensors = new Map(checkpoint.tensors)
  change(tensors)
  return { ...checkpoint, tensors }
}
const codes = (checkpoint: Checkpoint, options: UpcycleOptions) =>
  upcycleProblems(checkpoint, options).map(({ code }) => code)
const elements = ({ tensors }: Checkpoint) =>
  [...tensors.values()].reduce((sum, { shape }) => sum + numel(shape), 0)

describe.each(FAMILIES)('%s', (modelType) => {
  const base = dense(modelType)
  const family = familyOf(base.config)
  const result = upcycle({ experts: 3 })(base)
  const target = familyOf(result.config)

  it('becomes exactly what a stock mixture stores, in model order', () => {
    expect([...result.tensors.keys()]).toEqual([...expectedTensors(target, result.config).keys()])
    expect(tensorProblems(target, result.config, result.tensors)).toEqual([])
  })

  it('copies every tensor once, and every feed-forward matrix into each expert', () => {
    const seen = new Map<string, number>()
    for (const [name, tensor] of result.tensors) {
      const from = denseName(target, family, name)
      if (from === undefined) continue
      expect(tensor).toEqual(base.tensors.get(from))
      seen.set(from, (seen.get(from) ?? 0) + 1)
    }
    for (const name of base.tensors.keys())
      expect(seen.get(name)).toBe(roleOf(family, name).group === 'ffn' ? 3 : 1)
  })

  it('gives each layer a router of its own, in the dtype of the model', () => {
    const routers = [...result.tensors].filter(([name]) => roleOf(target, name).group === 'router')
    expect(routers).toHaveLength(2)
    for (const [name, tensor] of routers) {
      expect(tensor).toMatchObject({ dtype: 'BF16', shape: [3, 8] })
      expect(tensor.expr).toEqual({
        op: 'random',
        distribution: 'normal',
        scale: Math.sqrt(2 / 11),
        seed: 0,
        name,
      })
    }
  })

  it('has N + (E-1) 3HI |S| + E H |S| parameters, and a placeholder where there must be one (property 9)', () => {
    const placeholder = modelType === 'qwen2' ? (3 * 32 + 1) * 8 * 2 : 0
    expect(elements(result)).toBe(elements(base) + 2 * 3 * 8 * 12 * 2 + 3 * 8 * 2 + placeholder)
    expect(countParameters(target, result.config).total).toBe(elements(result))
  })

  it('with one expert and one choice is the dense model (property 4)', () => {
    const single = upcycle({ experts: 1 })(base)
    expect(single.config.num_experts_per_tok).toBe(1)
    const copied = [...single.tensors].filter(([name]) => denseName(target, family, name) !== undefined)
    expect(copied.map(([name]) => denseName(target, family, name)).sort()).toEqual(
      [...base.tensors.keys()].sort(),
    )
    for (const [name, tensor] of copied)
      expect(tensor).toEqual(base.tensors.get(denseName(target, family, name)!))
    expect(gateTopKRenormalized([-3], 1).weights).toEqual([1])
  })

  it('is plain data, and leaves its input alone', () => {
    const before = JSON.stringify([...base.tensors])
    expect(JSON.parse(JSON.stringify([...result.tensors]))).toEqual([...result.tensors])
    expect(JSON.stringify([...base.tensors])).toBe(before)
    expect(base.provenance.recipe).toEqual([])
  })
})

describe('the function is preserved (property 1)', () => {
  // One feed-forward block in F64; the matrices are made up from the name of the tensor that an expression reads.
  const values = (expr: Expr, count: number) => {
    const { seed, name } = expr.op === 'random' ? expr : { seed: 1, name: [...reads(expr)][0]!.tensor }
    let state = [...name].reduce((hash, letter) => (hash * 31 + letter.charCodeAt(0)) % 65521, seed % 65521)
    return Array.from({ length: count }, () => {
      state = (state * 17364 + 1) % 65521
      return state / 65521 - 0.5
    })
  }
  const times = ({ expr, shape }: Tensor, x: readonly number[]): readonly number[] => {
    const matrix = values(expr, numel(shape))
    const width = shape[1]!
    return Array.from({ length: shape[0]! }, (_, row) =>
      x.reduce((sum, value, i) => sum + matrix[row * width + i]! * value, 0),
    )
  }
  const feedForward = (gate: Tensor, up: Tensor, down: Tensor, x: readonly number[]) => {
    const right = times(up, x)
    const hidden = times(gate, x).map((value, i) => (value / (1 + Math.exp(-value))) * right[i]!)
    return times(down, hidden)
  }
  const base = dense('llama')
  const block = 'model.layers.1.block_sparse_moe'
  const mixture = ({ tensors }: Checkpoint, x: readonly number[], k: number, gate: typeof gateTopK) => {
    const { experts, weights } = gate(times(tensors.get(`${block}.gate.weight`)!, x), k)
    const outputs = experts.map((e) => {
      const part = (name: string) => tensors.get(`${block}.experts.${e}.${name}.weight`)!
      return feedForward(part('w1'), part('w3'), part('w2'), x)
    })
    return x.map((_, i) => outputs.reduce((sum, output, e) => sum + weights[e]! * output[i]!, 0))
  }
  const denseOutput = (x: readonly number[]) => {
    const part = (name: string) => base.tensors.get(`model.layers.1.mlp.${name}_proj.weight`)!
    return feedForward(part('gate'), part('up'), part('down'), x)
  }
  const input = fc.array(fc.double({ min: -2, max: 2, noNaN: true }), { minLength: 8, maxLength: 8 })

  it('for any router, seed and k under the renormalising gate', () => {
    fc.assert(
      fc.property(
        input,
        fc.constantFrom('xavier', 'normal', 'uniform'),
        fc.integer({ min: 0, max: 1e6 }),
        fc.integer({ min: 1, max: 4 }),
        (x, router, seed, topK) => {
          const result = upcycle({ experts: 4, topK, router, seed })(base)
          const expected = denseOutput(x)
          mixture(result, x, topK, gateTopKRenormalized).forEach((value, i) => {
            expect(Math.abs(value - expected[i]!)).toBeLessThanOrEqual(1e-14 * (1 + Math.abs(expected[i]!)))
          })
        },
      ),
    )
  })

  it('but not under a gate that does not renormalise', () => {
    const result = upcycle({ experts: 4, topK: 2 })(base)
    const x = [1, -1, 0.5, 2, -0.5, 1, 1, -2]
    const ratio = mixture(result, x, 2, gateTopK)[0]! / denseOutput(x)[0]!
    expect(ratio).toBeLessThan(1)
    expect(upcycleWarnings({ experts: 4, normTopkProb: false }).map(({ code }) => code)).toEqual([
      'not-function-preserving',
    ])
  })
})

describe('options', () => {
  const base = dense('llama')
  const expert = (checkpoint: Checkpoint, e: number) =>
    checkpoint.tensors.get(`model.layers.0.block_sparse_moe.experts.${e}.w1.weight`)!

  it('languages name the experts, and count them', () => {
    const result = upcycle({ languages: ['el', 'hu', 'tr'] })(base)
    expect(result.config.num_local_experts).toBe(4)
    expect(result.provenance.experts).toEqual(['original', 'el', 'hu', 'tr'])
    expect(upcycle({ experts: 2 })(base).provenance.experts).toBeUndefined()
  })

  it('noise leaves expert 0 an exact copy, and is different in every expert and matrix', () => {
    const result = upcycle({ experts: 3, expertInit: { kind: 'noise', std: 0.01 }, seed: 5 })(base)
    const copy = read('synthetic', 'model.layers.0.mlp.gate_proj.weight')
    expect(expert(result, 0).expr).toEqual(copy)
    expect(expert(result, 2).expr).toEqual({
      op: 'add',
      args: [
        copy,
        {
          op: 'random',
          distribution: 'normal',
          scale: 0.01,
          seed: 5,
          name: 'model.layers.0.block_sparse_moe.experts.2.w1.weight',
        },
      ],
    })
    const drawn = [...result.tensors.values()].flatMap(({ expr }) =>
      expr.op === 'add' ? [JSON.stringify(expr)] : [],
    )
    expect(new Set(drawn).size).toBe(2 * 2 * 3)
  })

  it('Qwen2-MoE gets a shared expert of zeros', () => {
    const { tensors } = upcycle({ experts: 2, target: 'qwen2_moe' })(base)
    const shared = (name: string) => tensors.get(`model.layers.1.mlp.shared_expert${name}.weight`)!
    expect(shared('.gate_proj').shape).toEqual([32, 8])
    expect(shared('.down_proj').shape).toEqual([8, 32])
    expect(shared('_gate').shape).toEqual([1, 8])
    for (const name of ['.gate_proj', '.up_proj', '.down_proj']) {
      const { expr, shape } = shared(name)
      const zero = literal(Float32Array.of(0))
      expect(expr).toEqual({ op: 'spread', arg: zero, count: 1, each: numel(shape), times: 1 })
    }
  })

  it('are recorded with what auto came to, after what was done before', () => {
    const before = { ...base, provenance: { recipe: [{ op: 'scale' }], skipped: [] } }
    expect(upcycle({ experts: 2, router: 'orthogonal', seed: 3 })(before).provenance).toEqual({
      recipe: [
        { op: 'scale' },
        {
          op: 'upcycle',
          inputs: { base: [...base.sources.keys()][0] },
          experts: 2,
          topK: 2,
          target: 'mixtral',
          router: 'orthogonal',
          seed: 3,
          expertInit: { kind: 'copy' },
          languages: [],
          normTopkProb: true,
          granularity: 1,
          denseLayers: [],
          sharedExpert: 'placeholder',
          others: 'base',
        },
      ],
      skipped: [],
    })
  })

  it('warn of what will work and surprise', () => {
    const warned = (options: UpcycleOptions) => upcycleWarnings(options).map(({ code }) => code)
    expect(warned({ experts: 4 })).toEqual([])
    expect(warned({ experts: 1 })).toEqual([])
    expect(warned({ experts: 4, topK: 1 })).toEqual(['no-router-gradient'])
    expect(warned({ experts: 4, topK: 1, normTopkProb: false })).toEqual(['not-function-preserving'])
    expect(warned({ experts: 4, expertInit: { kind: 'noise', std: 1 } })).toEqual(['not-function-preserving'])
  })

  it.each<[UpcycleOptions, readonly string[]]>([
    [{}, ['experts']],
    [{ experts: 0 }, ['experts']],
    [{ experts: 2.5 }, ['experts']],
    [{ experts: 2, topK: 3 }, ['topK']],
    [{ experts: 2, topK: 0 }, ['topK']],
    [{ experts: 2, seed: 2 ** 53 }, ['seed']],
    [{ experts: 2, expertInit: { kind: 'noise', std: 0 } }, ['expertInit']],
    [{ experts: 4, languages: ['el'] }, ['languages']],
    [{ languages: ['el', 'el'] }, ['languages']],
    [{ languages: ['original'] }, ['languages']],
    [{ languages: [' '] }, ['languages']],
    [{ experts: 2, topK: 9, seed: 0.5, languages: ['a', 'b'] }, ['topK', 'seed', 'languages']],
  ])('%j is refused', (options, names) => {
    const problems = upcycleProblems(base, options)
    expect(problems.map(({ message }) => message)).toEqual(
      names.map((name) => `Option ${name} is not usable`),
    )
    expect(() => upcycle(options)(base)).toThrow(ModelError)
  })
})

describe('checkpoints', () => {
  it('leave buffers behind, and say so', () => {
    const name = 'model.layers.0.self_attn.rotary_emb.inv_freq'
    const base = withTensors(dense('llama'), (tensors) =>
      tensors.set(name, { dtype: 'F32', shape: [2], expr: read('synthetic', name) }),
    )
    const result = upcycle({ experts: 2 })(base)
    expect(result.tensors.has(name)).toBe(false)
    expect(result.provenance.skipped).toEqual([{ tensor: name, reason: expect.stringContaining('computes') }])
  })

  it('keep tied embeddings tied, and a head that is stored beside them', () => {
    const tied = dense('qwen2', { tie_word_embeddings: true })
    expect(upcycle({ experts: 2 })(tied).tensors.has('lm_head.weight')).toBe(false)
    const head: Tensor = { dtype: 'BF16', shape: [20, 8], expr: read('synthetic', 'lm_head.weight') }
    const stored = withTensors(tied, (tensors) => tensors.set('lm_head.weight', head))
    const result = upcycle({ experts: 2 })(stored)
    expect(result.tensors.get('lm_head.weight')).toBe(head)
    expect(result.config.tie_word_embeddings).toBe(true)
  })

  it('keep the dtype of every tensor; a router has that of its block', () => {
    const base = withTensors(dense('llama'), (tensors) => {
      for (const [name, tensor] of tensors)
        if (name.includes('norm')) tensors.set(name, { ...tensor, dtype: 'F32' })
    })
    const { tensors } = upcycle({ experts: 2 })(base)
    expect(tensors.get('model.norm.weight')!.dtype).toBe('F32')
    expect(tensors.get('model.layers.0.block_sparse_moe.gate.weight')!.dtype).toBe('BF16')
  })

  it('that are symbolic already stay so: experts share the whole expression', () => {
    const name = 'model.layers.0.mlp.up_proj.weight'
    const scaled: Expr = { op: 'scale', by: 2, arg: read('synthetic', name) }
    const base = withTensors(dense('llama'), (tensors) =>
      tensors.set(name, { ...tensors.get(name)!, expr: scaled }),
    )
    const { tensors } = upcycle({ experts: 2 })(base)
    for (const e of [0, 1])
      expect(tensors.get(`model.layers.0.block_sparse_moe.experts.${e}.w3.weight`)!.expr).toBe(scaled)
  })

  it.each([
    ['an unknown family', { ...dense('llama'), config: { model_type: 'bert' } }, ['unsupported-family']],
    ['a mixture', upcycle({ experts: 2 })(dense('llama')), ['already-moe']],
    [
      'a config without sizes',
      { ...dense('llama'), config: { model_type: 'llama' } },
      Array(4).fill('bad-config'),
    ],
    ['biases that no expert holds', dense('llama', { mlp_bias: true }), ['target-cannot-hold']],
    [
      'quantised weights',
      syntheticCheckpoint(tinyConfig('llama', { quantization_config: { bits: 8 } }), 'I8'),
      ['quantised', ...Array(21).fill('not-float')],
    ],
    [
      'a checkpoint with everything wrong',
      withTensors(dense('llama'), (tensors) => {
        tensors.delete('model.norm.weight')
        tensors.set('score.weight', { dtype: 'BF16', shape: [2, 8], expr: read('synthetic', 'score.weight') })
        tensors.set('lm_head.weight', {
          dtype: 'F8_E4M3',
          shape: [8, 20],
          expr: read('synthetic', 'lm_head.weight'),
        })
      }),
      ['missing-tensor', 'shape-mismatch', 'not-float', 'unexpected-tensor'],
    ],
  ])('%s is refused with every problem', (_, checkpoint, expected) => {
    expect(codes(checkpoint, { experts: 2 })).toEqual(expected)
  })

  it('problems of options, target and tensors come together', () => {
    const base = withTensors(dense('qwen3'), (tensors) => tensors.delete('model.norm.weight'))
    expect(codes(base, { experts: 2, topK: 3, target: 'mixtral' })).toEqual([
      'bad-option',
      'target-cannot-hold',
      'missing-tensor',
    ])
    expect(codes(dense('llama'), { experts: 2, normTopkProb: false })).toEqual(['target-cannot-hold'])
    expect(codes(dense('llama'), { experts: 1e6 })).toEqual(['bad-config'])
  })
})

describe('allow', () => {
  const extra: Tensor = { dtype: 'BF16', shape: [2, 8], expr: read('synthetic', 'score.weight') }
  const base = withTensors(dense('llama'), (tensors) => tensors.set('score.weight', extra))
  const allow = [{ tensors: 'score.*', reason: 'a head for ranking' }]

  it('leaves out what has no place, of every model, and says why', () => {
    expect(codes(base, { experts: 2 })).toEqual(['unexpected-tensor'])
    const other = withTensors(base, () => {})
    const { provenance, tensors } = upcycle({ experts: 2, expertsFrom: new Map([[1, other]]), allow })(base)
    expect(tensors.has('score.weight')).toBe(false)
    expect(provenance.skipped).toEqual([
      { tensor: 'score.weight', reason: 'a head for ranking (base)' },
      { tensor: 'score.weight', reason: 'a head for ranking (model of expert 1)' },
    ])
    expect(provenance.recipe[0]!.allow).toEqual(allow)
  })

  it('of nothing leaves no trace', () => {
    const plain = dense('llama')
    expect(upcycle({ experts: 2, allow: [] })(plain)).toEqual(upcycle({ experts: 2 })(plain))
  })

  it('does not make up for tensors that are needed', () => {
    const options = { experts: 2, allow: [{ tensors: 'norm', reason: 'a slip' }] }
    expect(new Set(codes(dense('llama'), options))).toEqual(new Set(['missing-tensor']))
  })

  it('takes one model in two places for one', () => {
    const expertsFrom = new Map([
      [0, base],
      [1, base],
    ])
    const { sources, provenance } = upcycle({ experts: 2, expertsFrom, others: 'mean', allow })(base)
    expect(sources.size).toBe(1)
    expect(provenance.skipped).toHaveLength(1)
  })
})

describe('given routers', () => {
  const base = dense('qwen2')
  const values = (size: number, layers: readonly number[]) =>
    new Map(layers.map((layer) => [layer, Float32Array.from({ length: size }, (_, i) => layer + i ** 2)]))
  const from = { kind: 'means', tokens: [3, 4] }

  it('are written as they are, and recorded by how they came about', () => {
    const router = { from, values: values(16, [0, 1]) }
    const { tensors, provenance } = upcycle({ experts: 2, router })(base)
    for (const layer of [0, 1])
      expect(tensors.get(`model.layers.${layer}.mlp.gate.weight`)!.expr).toEqual(
        literal(router.values.get(layer)!),
      )
    expect(provenance.recipe.at(-1)!.router).toEqual(from)
  })

  it('are needed for mixture layers only, in the size of whole experts', () => {
    const given = { experts: 2, router: { from, values: values(16, [1]) } }
    expect(codes(base, { ...given, denseLayers: [0], granularity: 2 })).toEqual([])
    const [problem] = upcycleProblems(base, given)
    expect(problem).toMatchObject({ code: 'bad-option', received: 'no values for layer 0' })
    expect(codes(base, { experts: 3, router: { from, values: values(16, [0, 1]) } })).toEqual(['bad-option'])
  })

  it('that cannot tell experts apart are warned of', () => {
    const equal = { from, values: new Map([[0, new Float32Array(16).fill(1)]]) }
    expect(upcycleWarnings({ experts: 2, router: equal })).toMatchObject([
      { code: 'alike-experts', received: 'experts 0 and 1 in layer 0' },
    ])
    expect(upcycleWarnings({ experts: 2, router: { from, values: values(16, [0]) } })).toEqual([])
  })
})
