import { isTarget, type LoraConfig, parseLoraConfig, scalingOf } from '@polygraft/delta'
import type { JsonObject, ModelError } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'

const PLAIN = { peft_type: 'LORA', r: 8, lora_alpha: 16, target_modules: ['q_proj', 'v_proj'] }
const parse = (change: JsonObject = {}): LoraConfig => parseLoraConfig({ ...PLAIN, ...change })
const problems = (config: JsonObject): string[] => {
  try {
    parseLoraConfig(config)
    return []
  } catch (error) {
    return (error as ModelError).problems.map(({ code, message }) => `${code} ${message.split(/[ :]/)[0]}`)
  }
}
const Q = (layer: number) => `model.layers.${layer}.self_attn.q_proj`

describe('scalingOf', () => {
  it('is alpha / rank, or alpha / sqrt(rank)', () => {
    expect(scalingOf(parse(), Q(0))).toEqual({ rank: 8, scaling: 2 })
    expect(scalingOf(parse({ use_rslora: true, r: 16 }), Q(0))).toEqual({ rank: 16, scaling: 4 })
  })

  it('takes the first pattern that names a module or its end', () => {
    const config = parse({
      rank_pattern: { 'layers.1.self_attn.q_proj': 2, q_proj: 4, '.*': 6 },
      alpha_pattern: { '^model.layers.2.*': 1, 'k_proj|q_proj': 32 },
    })
    expect(scalingOf(config, Q(1))).toEqual({ rank: 2, scaling: 16 })
    expect(scalingOf(config, Q(0))).toEqual({ rank: 4, scaling: 8 })
    expect(scalingOf(config, Q(2))).toEqual({ rank: 4, scaling: 1 / 4 })
    expect(scalingOf(config, 'model.layers.0.mlp.up_proj').rank).toBe(6)
    // `proj` is no end after a dot.
    expect(scalingOf(parse({ rank_pattern: { proj: 2 } }), Q(0)).rank).toBe(8)
  })
})

describe('isTarget', () => {
  const cases: [string, JsonObject, string, boolean][] = [
    ['by its end', {}, Q(3), true],
    ['not by half a name', { target_modules: ['proj'] }, Q(3), false],
    ['by the whole name', { target_modules: ['lm_head'] }, 'lm_head', true],
    ['all-linear', { target_modules: 'all-linear' }, Q(0), true],
    ['by a regular expression', { target_modules: '.*\\.0\\..*q_proj' }, Q(0), true],
    ['which fits all of it', { target_modules: 'q_proj' }, Q(0), false],
    ["in Python's spelling", { target_modules: '.*(?P<which>q|v)_proj' }, Q(0), true],
    ['unless excluded', { exclude_modules: ['self_attn.q_proj'] }, Q(0), false],
    ['or excluded by a regular expression', { exclude_modules: '.*layers\\.0.*' }, Q(0), false],
    ['or saved whole', { modules_to_save: ['q_proj'] }, Q(0), false],
    ['in listed layers', { layers_to_transform: [1, 3] }, Q(3), true],
    ['not in others', { layers_to_transform: [1, 3] }, Q(2), false],
    ['in the one layer', { layers_to_transform: 2 }, Q(2), true],
    ['by the name of the list', { layers_to_transform: [1], layers_pattern: 'layers' }, Q(1), true],
    ['not of another list', { layers_to_transform: [1], layers_pattern: ['h'] }, Q(1), false],
    [
      "not by an expert's index",
      { layers_to_transform: [7], target_modules: ['up'] },
      'm.layers.1.experts.7.up',
      false,
    ],
  ]
  it.each(cases)('%s', (_, change, module, expected) => {
    expect(isTarget(parse(change), module)).toBe(expected)
  })
})

describe('parseLoraConfig', () => {
  it('lists everything that is missing or wrong', () => {
    expect(problems({ peft_type: 'LORA', r: 0, bias: 'some', target_modules: '(', use_dora: 1 })).toEqual([
      'bad-adapter-config r',
      'bad-adapter-config lora_alpha',
      'bad-adapter-config target_modules',
      'bad-adapter-config bias',
      'bad-adapter-config use_dora',
    ])
    expect(problems({ ...PLAIN, rank_pattern: { q: 'x' }, alpha_pattern: { '[': 1 } })).toEqual([
      'bad-adapter-config rank_pattern',
      'bad-adapter-config alpha_pattern',
    ])
    expect(problems({ ...PLAIN, peft_type: 'IA3' })).toEqual(['not-a-lora Only'])
  })

  it('refuses what makes another model than base + scale * B A, with the reason', () => {
    for (const init of ['pissa', 'pissa_niter_4', 'olora', 'loftq', 'corda', 'lora_ga'])
      expect(problems({ ...PLAIN, init_lora_weights: init })).toEqual([
        'unsupported-adapter init_lora_weights',
      ])
    for (const init of [true, false, 'gaussian', 'eva', 'orthogonal', 'mica'])
      expect(problems({ ...PLAIN, init_lora_weights: init })).toEqual([])
    expect(problems({ ...PLAIN, layer_replication: [[0, 2]], use_qalora: true, invented: 1 })).toEqual([
      'unsupported-adapter layer_replication',
      'unsupported-adapter use_qalora',
      'unsupported-adapter invented',
    ])
    expect(problems({ ...PLAIN, layer_replication: null, use_qalora: false, invented: {} })).toEqual([])
  })
})
