import { buildRecipe, dryMeasuring, engineMeasuring, parseRecipe } from '@polygraft/recipe'
import { type Checkpoint, type JsonObject, ModelError } from '@polygraft/tensor'
import { readText } from '@polygraft/tensor-io'
import { describe, expect, it } from 'vitest'
import { rowOf, tinyAdapter, tinyModel } from '../test/models.js'

const EMBEDDING = 'model.embed_tokens.weight'

function build(yaml: string, models: Readonly<Record<string, Checkpoint>>, measuring = engineMeasuring()) {
  return buildRecipe(parseRecipe(yaml, 'r.yml'), { open: async ({ path }) => models[path]!, measuring })
}

function problemsOf(yaml: string) {
  try {
    parseRecipe(yaml, 'r.yml')
  } catch (error) {
    if (error instanceof ModelError) return error.problems
    throw error
  }
  throw new Error('it was read')
}

const both = (more: string) => `
merge_method: linear
models:
  - { model: a, parameters: { weight: 1 } }
  - { model: b, parameters: { weight: 1 } }
${more}`

describe('recipes of mergekit', () => {
  it('unite tokenizers, average their rows, and pad with the mean', async () => {
    const models = {
      a: await tinyModel(1, { tokens: ['x', 'y'] }),
      b: await tinyModel(2, { tokens: ['y', '<z>'] }),
    }
    const { checkpoint } = await build(both('tokenizer: { source: union, pad_to_multiple_of: 4 }'), models)
    expect(checkpoint.config.vocab_size).toBe(4)
    expect(await rowOf(checkpoint, EMBEDDING, 0)).toEqual(await rowOf(models.a, EMBEDDING, 0))
    expect(await rowOf(checkpoint, EMBEDDING, 2)).toEqual(await rowOf(models.b, EMBEDDING, 1))
    const rows = await Promise.all([0, 1, 2].map((row) => rowOf(checkpoint, EMBEDDING, row)))
    const padding = await rowOf(checkpoint, EMBEDDING, 3)
    for (const [i, value] of padding.entries())
      expect(value).toBeCloseTo((rows[0]![i]! + rows[1]![i]! + rows[2]![i]!) / 3, 6)
    const tokenizer = JSON.parse(await readText(checkpoint.files.get('tokenizer.json')!))
    expect(tokenizer.added_tokens).toMatchObject([{ id: 2, content: '<z>' }])
  })

  it('set chat templates: by name, or the one that most models have', async () => {
    const templated = (seed: number, template: string) =>
      tinyModel(seed, { tokens: ['x', 'y'], files: { 'chat_template.jinja': template } })
    const models = { a: await templated(1, '{{ one }}'), b: await templated(2, '{{ two }}') }
    const text = async (wanted: string) => {
      const { checkpoint } = await build(both(`chat_template: "${wanted}"`), models)
      return readText(checkpoint.files.get('chat_template.jinja')!)
    }
    expect(await text('auto')).toBe('{{ one }}')
    expect(await text('chatml')).toContain('<|im_start|>')
    expect(await text('{{ mine }}')).toBe('{{ mine }}')
    await expect(text('exaone')).rejects.toMatchObject({ code: 'bad-value' })
  })

  it('drop what they allow to be dropped, and say so; anything else that does not fit is an error', async () => {
    const more = { attention_bias: true } satisfies JsonObject
    const models = { a: await tinyModel(1), b: await tinyModel(2, { config: more }) }
    const open = {
      open: async ({ path }: { path: string }) => models[path as 'a']!,
      measuring: dryMeasuring,
      force: true,
    }
    await expect(buildRecipe(parseRecipe(both(''), 'r.yml'), open)).rejects.toMatchObject({
      code: 'missing-tensor',
    })
    const allow = 'allow: [{ tensors: _proj.bias, reason: too small to matter }]'
    const { checkpoint } = await buildRecipe(parseRecipe(both(allow), 'r.yml'), open)
    expect(checkpoint.provenance.skipped).toContainEqual({
      tensor: 'model.layers.0.self_attn.q_proj.bias',
      reason: 'too small to matter (b)',
    })
  })

  it('refuse models of different families and configs, at the line that names them', async () => {
    const models = { a: await tinyModel(1), b: await tinyModel(2, { config: { model_type: 'mistral' } }) }
    await expect(build(both(''), models)).rejects.toMatchObject({
      problems: [{ code: 'family-mismatch', line: 5, column: 14 }],
    })
  })

  it('name the tensor for which no condition gives a value', async () => {
    const models = { a: await tinyModel(1), b: await tinyModel(2) }
    const yaml = both('').replace(
      'weight: 1 } }\n  - { model: b',
      'weight: [{ filter: mlp, value: 1 }] } }\n  - { model: b',
    )
    await expect(build(yaml, models)).rejects.toMatchObject({
      problems: expect.arrayContaining([expect.objectContaining({ code: 'missing-key', tensor: EMBEDDING })]),
    })
  })

  it.each([
    ['models: [{ model: a+b+c }]', 'This names no model'],
    ['models: [{ model: { model: a, override_architecture: X } }]', 'override_architecture'],
    ['slices: [{ residual_weight: 1, sources: [{ model: a, layer_range: [0, 1] }] }]', 'residual_weight'],
    ['modules: { vision: { models: [{ model: a }] } }', 'vision'],
    ['models: [{ model: a }]\nslices: [{ sources: [{ model: a, layer_range: [0, 1] }] }]', 'exactly one'],
    ['models: [{ model: a }]\ntokenizer_source: base\ntokenizer: { source: base }', 'either'],
    ['models: [{ model: a }]\ntokenizer: { tokens: { x: { force: true } } }', 'source is missing'],
  ])('refuse by name what is not done: %s', (yaml, words) => {
    const problems = problemsOf(`merge_method: linear\nparameters: { weight: 1 }\n${yaml}\n`)
    expect(problems.map(({ message }) => message).join('\n')).toContain(words)
    expect(problems[0]).toMatchObject({ file: 'r.yml', line: expect.any(Number), column: expect.any(Number) })
  })

  it('apply the adapter of model+lora before they merge; one for other shapes is refused', async () => {
    const name = 'model.layers.1.self_attn.q_proj'
    const models = {
      a: await tinyModel(1),
      b: await tinyAdapter(name, [4, 4]),
      c: await tinyAdapter(name, [5, 4]),
    }
    const yaml = (lora: string) =>
      `merge_method: linear\nmodels: [{ model: a+${lora}, parameters: { weight: 1 } }]`
    const { checkpoint } = await build(yaml('b'), models)
    const before = await rowOf(models.a, `${name}.weight`, 2)
    // alpha / r = 2, B = [[0], [1], [2], [3]], A = [[0, 1, 2, 3]]
    expect(await rowOf(checkpoint, `${name}.weight`, 2)).toEqual(
      before.map((w, i) => Math.fround(w + 2 * 2 * i)),
    )
    expect(await rowOf(checkpoint, EMBEDDING, 1)).toEqual(await rowOf(models.a, EMBEDDING, 1))
    await expect(build(yaml('c'), models)).rejects.toMatchObject({ code: 'shape-mismatch' })
  })
})
