import { familyOf, nameOf } from '@polygraft/architectures'
import { buildRecipe, engineMeasuring, parseRecipe, type ReadPrompts } from '@polygraft/recipe'
import { type Checkpoint, ModelError } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'
import { contentOf, tinyModel } from '../test/models.js'

const build = (yaml: string, models: Readonly<Record<string, Checkpoint>>) =>
  buildRecipe(parseRecipe(yaml, 'moe.yml'), {
    open: async ({ path }) => models[path]!,
    measuring: engineMeasuring(),
  })

const WIDE = { config: { hidden_size: 64, num_attention_heads: 4, head_dim: 16, torch_dtype: 'float32' } }
const config = (more: string) => `
base_model: a
${more}
experts:
  - { source_model: b, positive_prompts: [one] }
  - { source_model: a, positive_prompts: [two] }
`

describe("mergekit-moe's configs", () => {
  it('take each expert from its model and all else from the base', async () => {
    const models = { a: await tinyModel(1, WIDE), b: await tinyModel(2, WIDE) }
    const { checkpoint } = await build(config('gate_mode: random'), models)
    expect(checkpoint.config).toMatchObject({
      model_type: 'mixtral',
      num_local_experts: 2,
      num_experts_per_tok: 2,
    })
    const [mixture, a, b] = await Promise.all([checkpoint, models.a, models.b].map(contentOf))
    const of = (expert: number, part: 'gate' | 'up' | 'down') =>
      mixture![nameOf(familyOf(checkpoint.config), { group: 'expert', layer: 1, expert, part })!]
    expect(of(0, 'down')).toEqual(b!['model.layers.1.mlp.down_proj.weight'])
    expect(of(0, 'up')).toEqual(b!['model.layers.1.mlp.up_proj.weight'])
    expect(of(1, 'gate')).toEqual(a!['model.layers.1.mlp.gate_proj.weight'])
    expect(mixture!['model.embed_tokens.weight']).toEqual(a!['model.embed_tokens.weight'])
  })

  it.each([
    ['random', (values: number[]) => expect(deviation(values)).toBeCloseTo(1, 1)],
    [
      'uniform_random',
      (values: number[]) => {
        expect(Math.max(...values.map(Math.abs))).toBeLessThan(1 / 8)
        expect(deviation(values)).toBeCloseTo(1 / 8 / Math.sqrt(3), 2)
      },
    ],
  ])('draw gates as mergekit does: %s', async (mode, check) => {
    const models = { a: await tinyModel(1, WIDE), b: await tinyModel(2, WIDE) }
    const gates = async (seed: number) => {
      const { checkpoint } = await build(config(`gate_mode: ${mode}\nseed: ${seed}`), models)
      const content = await contentOf(checkpoint)
      return [0, 1, 2].map((layer) => {
        const name = `model.layers.${layer}.block_sparse_moe.gate.weight`
        return [...new Float32Array(Uint8Array.from(content[name]!.bytes).buffer)]
      })
    }
    const first = await gates(4)
    check(first.flat())
    expect(first[0]).not.toEqual(first[1])
    expect(await gates(4)).toEqual(first)
    expect(await gates(5)).not.toEqual(first)
  })

  const PROMPTS = `
base_model: a
MODE
experts:
  - { source_model: b, positive_prompts: [p, q], negative_prompts: [n] }
  - { source_model: a, positive_prompts: [r] }
`
  // Of each group of prompts, by layer.
  const states: Readonly<Record<string, readonly number[]>> = {
    'p,q': [3, 0, 0, 4],
    n: [0, 2, 0, 0],
    r: [1, 1, 1, 1],
  }
  const read: ReadPrompts = async (_, groups, state) =>
    groups.map((group) =>
      Array.from({ length: state === 'embedding' ? 1 : 3 }, (_, layer) =>
        Float32Array.from(states[group.join()]!, (x, h) => x + (h === 1 ? layer : 0)),
      ),
    )

  it.each([
    // The default, by mergekit's own code, is the last token.
    ['', 'last', [3, -2, 0, 4], [3, -2, 0, 4]],
    ['gate_mode: hidden', 'last', [3, -2, 0, 4], [3, -2, 0, 4]],
    ['gate_mode: hidden_last', 'last', [3, -2, 0, 4], [3, -2, 0, 4]],
    ['gate_mode: hidden_avg', 'average', [3, -2, 0, 4], [3, -2, 0, 4]],
    ['gate_mode: cheap_embed', 'embedding', [0.6, -1, 0, 0.8], [0.6, -1, 0, 0.8]],
  ])('make gates of prompts: %s', async (mode, expected, ...rows) => {
    const models = { a: await tinyModel(1), b: await tinyModel(2) }
    const asked: string[] = []
    const { checkpoint } = await buildRecipe(parseRecipe(PROMPTS.replace('MODE', mode), 'moe.yml'), {
      open: async ({ path }) => models[path as 'a' | 'b'],
      measuring: engineMeasuring(),
      prompts: (model, groups, state) => {
        asked.push(state)
        expect(model).toBe(models.a)
        return read(model, groups, state)
      },
    })
    expect(asked).toEqual([expected])
    const content = await contentOf(checkpoint)
    const gateOf = (layer: number) => [
      ...new Float32Array(
        Uint8Array.from(content[`model.layers.${layer}.block_sparse_moe.gate.weight`]!.bytes).buffer,
      ),
    ]
    for (const [layer, row] of rows.entries()) {
      const others = [1, expected === 'embedding' ? 1 : 1 + layer, 1, 1]
      const directions = [row, others].flatMap((each) => {
        const norm = Math.hypot(...each)
        return each.map((x) => x / norm)
      })
      for (const [i, x] of gateOf(layer).entries()) expect(x).toBeCloseTo(directions[i]!, 6)
    }
    expect(checkpoint.provenance.recipe.at(-2)).toMatchObject({ op: 'gates' })
  })

  it('refuse prompts that nothing reads, and those that cancel; warn of those that are alike', async () => {
    const models = { a: await tinyModel(1), b: await tinyModel(2) }
    const recipe = parseRecipe(PROMPTS.replace('MODE', ''), 'moe.yml')
    const environment = {
      open: async ({ path }: { path: string }) => models[path as 'a' | 'b'],
      measuring: engineMeasuring(),
    }
    const place = { file: 'moe.yml', line: 4 }
    await expect(buildRecipe(recipe, environment)).rejects.toMatchObject({
      problems: [{ code: 'no-runtime', ...place }],
    })
    const ones: ReadPrompts = async (_, groups) =>
      groups.map(() => Array(3).fill(new Float32Array(4).fill(1)))
    await expect(buildRecipe(recipe, { ...environment, prompts: ones })).rejects.toMatchObject({
      problems: [{ code: 'same-prompts', received: 'none for expert 0', ...place }],
    })
    const late: ReadPrompts = async (...given) =>
      (await ones(...given)).map((group, g) =>
        group.map((x, layer) => (layer < 2 ? x : x.map((_, h) => +(h === g)))),
      )
    const zeros = await buildRecipe(recipe, { ...environment, prompts: late })
    expect(zeros.warnings.at(-1)).toMatchObject({ code: 'alike-experts', received: 'more in layers 0, 1' })
    const alike = parseRecipe(PROMPTS.replace('MODE', '').replace(', negative_prompts: [n]', ''), 'moe.yml')
    const { warnings } = await buildRecipe(alike, { ...environment, prompts: ones })
    expect(warnings.at(-1)).toMatchObject({ code: 'alike-experts', received: 'more in layers 0, 1, 2' })
  })

  it('store what they are told to, and take a shared expert from the base', async () => {
    const models = { a: await tinyModel(1, WIDE), b: await tinyModel(2, WIDE) }
    const shared = 'gate_mode: random\ndtype: float16\nshared_experts: [{ source_model: a }]'
    const { checkpoint, warnings } = await build(config(shared), models)
    expect(checkpoint.config).toMatchObject({ model_type: 'qwen2_moe', torch_dtype: 'float16' })
    expect(new Set([...checkpoint.tensors.values()].map(({ dtype }) => dtype))).toEqual(new Set(['F16']))
    expect(warnings.map(({ code }) => code)).toContain('differs-from-mergekit')
    const gate = (await contentOf(checkpoint))['model.layers.0.mlp.shared_expert_gate.weight']!
    expect(gate.bytes.every((byte) => byte === 0)).toBe(true)
  })

  it.each<[string, string, object]>([
    [
      'prompts of a shared expert',
      'shared_experts: [{ source_model: a, positive_prompts: [x] }]',
      { code: 'not-supported', line: 3, column: 37 },
    ],
    [
      'an unknown gate mode',
      'gate_mode: randm',
      { code: 'bad-value', line: 3, next: 'Did you mean random?' },
    ],
    [
      'an unknown key',
      'gate_mode: random\nexpert_per_token: 2',
      { code: 'unknown-key', line: 4, next: 'Did you mean experts_per_token?' },
    ],
    [
      'more experts per token than there are',
      'gate_mode: random\nexperts_per_token: 3',
      { code: 'bad-value', line: 4, expected: '1 to 2' },
    ],
    ['an architecture', 'gate_mode: random\narchitecture: deepseek', { code: 'not-supported', line: 4 }],
    [
      'a scaled expert',
      'gate_mode: random\nshared_experts: [{ source_model: a, residual_scale: 0.1 }]',
      { code: 'not-supported', line: 4, column: 37 },
    ],
    [
      'a shared expert of another model',
      'gate_mode: random\nshared_experts: [{ source_model: b }]',
      { code: 'not-supported', line: 4, expected: 'a' },
    ],
  ])('are refused by name: %s', (_, more, problem) => {
    expect(() => parseRecipe(config(more), 'moe.yml')).toThrow(ModelError)
    try {
      parseRecipe(config(more), 'moe.yml')
    } catch (error) {
      expect((error as ModelError).problems[0]).toMatchObject({ file: 'moe.yml', ...problem })
    }
  })

  const noPrompts =
    'base_model: a\nexperts:\n  - { source_model: a, positive_prompts: [x] }\n  - { source_model: b }\n'
  const same = noPrompts.replace('b }', 'b, positive_prompts: [x] }')
  it.each([
    [noPrompts, { code: 'missing-key', line: 4, column: 5, expected: 'positive_prompts' }],
    [`${noPrompts}gate_mode: cheap_embed`, { code: 'missing-key', line: 4, column: 5 }],
    [same, { code: 'bad-value', line: 2, message: expect.stringContaining('same for all') }],
  ])('are refused where prompts are missing or all the same', (yaml, problem) => {
    expect(() => parseRecipe(yaml, 'moe.yml')).toThrow(
      expect.objectContaining({ problems: [expect.objectContaining({ file: 'moe.yml', ...problem })] }),
    )
  })

  it('are refused where no target can hold the base', async () => {
    const models = { a: await tinyModel(1), b: await tinyModel(2) }
    await expect(build(config('gate_mode: random\narchitecture: qwen3'), models)).rejects.toMatchObject({
      problems: [{ code: 'target-cannot-hold', file: 'moe.yml', line: 2 }],
    })
  })
})

function deviation(values: readonly number[]): number {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length)
}
