import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { applyAdapter, createAdapter, createDelta, lowRankTargets, readAdapter } from '@polygraft/delta'
import { measureLowRank, measureStatistics } from '@polygraft/engine'
import { graft } from '@polygraft/graft'
import { buildRecipe, dryMeasuring, engineMeasuring, parseRecipe, recipeSchema } from '@polygraft/recipe'
import { type Checkpoint, ModelError, mergeSources, pipe } from '@polygraft/tensor'
import { dropTargets, expand, upcycle } from '@polygraft/upcycle'
import { describe, expect, it } from 'vitest'
import { contentOf, store, tinyModel } from '../test/models.js'

const BF16 = { config: { torch_dtype: 'bfloat16' } }

/** Three models of one family by the paths that recipes here have for them. */
async function threeModels(): Promise<Record<string, Checkpoint>> {
  const [base, post, other] = await Promise.all([1, 2, 3].map((seed) => tinyModel(seed, BF16)))
  return { './base': base!, './post': post!, './other': other! }
}

function build(yaml: string, models: Readonly<Record<string, Checkpoint>>, measuring = engineMeasuring()) {
  const open = async ({ path }: { path: string }) => models[path]!
  return buildRecipe(parseRecipe(yaml, 'r.yml'), { open, measuring })
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

describe('pipelines', () => {
  it('are their steps with every result written between, byte for byte', async () => {
    const models = await threeModels()
    const { checkpoint } = await build(
      `
steps:
  - id: mean
    op: merge
    merge_method: linear
    models: [{ model: ./base }, { model: ./other }]
    parameters: { weight: [0.3, 0.9] }
    dtype: bfloat16
  - { id: moe, op: upcycle, model: mean, experts: 3, expertInit: { kind: noise, std: 0.01 }, seed: 5 }
  - { id: out, op: graft, model: moe, base: ./base, post: ./post, lambda: 0.7, layerLambda: { 1: 0.5 } }
`,
      models,
    )
    const merge = `
steps:
  - { id: mean, op: merge, merge_method: linear, dtype: bfloat16,
      models: [{ model: ./base }, { model: ./other }], parameters: { weight: [0.3, 0.9] } }`
    const mean = await store((await build(merge, models)).checkpoint)
    const noise = { kind: 'noise', std: 0.01 } as const
    const moe = await store(pipe(mean, upcycle({ experts: 3, expertInit: noise, seed: 5 })))
    const pair = { base: models['./base']!, post: models['./post']! }
    const grafted = pipe(moe, graft({ ...pair, lambda: 0.7, layerLambda: new Map([[1, 0.5]]) }))
    expect(await contentOf(checkpoint)).toEqual(await contentOf(grafted))
    expect(checkpoint.config).toEqual(grafted.config)
    expect(checkpoint.provenance.recipe.map(({ op }) => op)).toEqual(['recipe', 'linear', 'upcycle', 'graft'])
  })

  it('take steps in any order, and run those that the output needs', async () => {
    const recipe = parseRecipe(
      `
output: out
steps:
  - { id: out, op: apply, model: ./other, delta: change, lambda: 0.5 }
  - { id: change, op: delta, base: ./base, post: ./post, scale: 2 }
  - { id: idle, op: upcycle, model: ./base, experts: 2 }
`,
      'r.yml',
    )
    expect(recipe).toMatchObject({ dialect: 'polygraft', steps: [{ id: 'change' }, { id: 'out' }] })
    expect(recipe.warnings).toMatchObject([{ code: 'unused-step', line: 6, column: 11 }])
  })

  it('extract an adapter, and apply it, as the operations do', async () => {
    const models = await threeModels()
    const text = (output: string) => `
output: ${output}
steps:
  - { id: change, op: delta, base: ./base, post: ./post }
  - { id: small, op: loraExtract, delta: change, rank: 2, targets: [q_proj, o_proj] }
  - { id: tuned, op: loraApply, model: ./other, adapter: small, scale: 0.5 }
  - { id: cut, op: truncate, delta: change, rank: 1 }
`
    const { checkpoint } = await build(text('tuned'), models)
    const delta = await store(createDelta({ base: models['./base']!, post: models['./post']! }))
    const targets = lowRankTargets({ delta, rank: 2, targets: ['q_proj', 'o_proj'] })
    const factors = await measureLowRank(targets, delta.sources)
    const adapter = await readAdapter(await store(createAdapter({ delta, factors })))
    const tuned = pipe(models['./other']!, applyAdapter({ adapter, scale: 0.5 }))
    expect(await contentOf(checkpoint)).toEqual(await contentOf(tuned))
    for (const output of ['tuned', 'cut', 'small']) {
      const dry = await build(text(output), models, dryMeasuring)
      const real = await build(text(output), models)
      expect([...dry.checkpoint.tensors.keys()]).toEqual([...real.checkpoint.tensors.keys()])
    }
  })

  it('measure what Drop-Upcycling draws anew, take experts from models, and graft by delta', async () => {
    const models = await threeModels()
    const { checkpoint, warnings } = await build(
      `
steps:
  - id: moe
    op: upcycle
    model: ./base
    experts: 3
    expertInit: { kind: drop, rate: 0.5 }
    expertsFrom: { 1: ./other }
    target: mixtral
  - { id: change, op: delta, base: ./base, post: ./post }
  - { id: out, op: graft, model: moe, delta: change, upcycled: moe }
`,
      models,
    )
    expect(checkpoint.config).toMatchObject({ model_type: 'mixtral', num_local_experts: 3 })
    const [step] = checkpoint.provenance.recipe.filter(({ op }) => op === 'upcycle')
    expect(step).toMatchObject({
      expertInit: { kind: 'drop', rate: 0.5 },
      inputs: { experts: { 1: expect.anything() } },
    })
    expect(warnings.map(({ code, line }) => `${code} ${line}`)).toContain('not-function-preserving 3')
    const [base, post, other] = Object.values(models) as [Checkpoint, Checkpoint, Checkpoint]
    const drop = { kind: 'drop', rate: 0.5 } as const
    const options = { experts: 3, expertsFrom: new Map([[1, other]]), target: 'mixtral' } as const
    const targets = dropTargets(base, { ...options, expertInit: drop })
    const statistics = await measureStatistics(targets, mergeSources(base, other))
    const moe = await store(pipe(base, upcycle({ ...options, expertInit: { ...drop, statistics } })))
    const delta = await store(createDelta({ base, post }))
    expect(await contentOf(checkpoint)).toEqual(await contentOf(pipe(moe, graft({ delta }))))
  })

  it('insert layers, and graft onto them', async () => {
    const models = await threeModels()
    const { checkpoint } = await build(
      `
steps:
  - { id: deep, op: expand, model: ./base, blocks: 1 }
  - { id: out, op: graft, model: deep, base: ./base, post: ./post }
`,
      models,
    )
    const pair = { base: models['./base']!, post: models['./post']! }
    const deep = await store(pipe(pair.base, expand({ blocks: 1 })))
    expect(checkpoint.config.num_hidden_layers).toBe(4)
    expect(await contentOf(checkpoint)).toEqual(await contentOf(pipe(deep, graft(pair))))
  })

  it('say of which step a problem is that only the models show', async () => {
    const yaml = 'steps:\n  - { id: moe, op: upcycle, model: ./base }\n'
    await expect(build(yaml, await threeModels())).rejects.toMatchObject({
      problems: [{ code: 'bad-option', file: 'r.yml', line: 2, column: 11 }],
    })
    const mixed = `${yaml.replace(' }', ', experts: 2 }')}  - { id: out, op: upcycle, model: moe, experts: 2 }\n`
    await expect(build(mixed, await threeModels())).rejects.toMatchObject({
      problems: [
        { code: 'already-moe', file: 'config.json', message: expect.stringContaining('r.yml:3:11') },
      ],
    })
  })
})

describe('bad pipelines', () => {
  const moe = '- { id: moe, op: upcycle, model: ./base, experts: 2 }'
  const step = (text: string) => `steps:\n  ${moe}\n  - { id: out, ${text} }\n`

  it.each<[string, string, object]>([
    [
      'an unknown key',
      step('op: graft, model: moe, delta: ./d, lamda: 1'),
      { code: 'unknown-key', line: 3, next: 'Did you mean lambda?' },
    ],
    [
      'an unknown op',
      step('op: grfat, model: moe'),
      { code: 'bad-value', line: 3, received: '"grfat"', next: 'Did you mean graft?' },
    ],
    ['a missing op', step('model: moe'), { code: 'missing-key', message: 'op is missing', line: 3 }],
    [
      'a missing parameter',
      step('op: apply, model: moe'),
      { code: 'missing-key', message: 'delta is missing', line: 3 },
    ],
    [
      'a missing parameter of a method',
      step('op: merge, merge_method: slerp, base_model: ./a, models: [{ model: moe }]'),
      { code: 'missing-key', line: 3, message: 'slerp needs the parameter t' },
    ],
    [
      'an unknown step',
      step('op: apply, model: mo, delta: ./d'),
      { code: 'unknown-step', line: 3, column: 34, next: 'Did you mean moe?' },
    ],
    [
      'a folder that is named like a step',
      step('op: apply, model: folder, delta: ./d'),
      { code: 'unknown-step', next: 'Write ./folder if a folder is meant.' },
    ],
    [
      'an unknown output',
      `output: mo\n${step('op: apply, model: moe, delta: ./d')}`,
      { code: 'unknown-step', line: 1 },
    ],
    [
      'a step that needs itself',
      step('op: apply, model: out, delta: ./d'),
      { code: 'cycle', received: 'out needs out' },
    ],
    [
      'two steps that wait for each other',
      step('op: apply, model: moe, delta: change }\n  - { id: change, op: delta, base: ./a, post: out'),
      { code: 'cycle', line: 3, received: 'out needs change needs out' },
    ],
    [
      'two steps of one name',
      step('op: apply, model: ./a, delta: ./d }\n  - { id: moe, op: delta, base: ./a, post: ./b'),
      { code: 'duplicate-step', line: 4 },
    ],
    [
      'a graft of two deltas',
      step('op: graft, model: moe, base: ./a, delta: ./d'),
      { code: 'bad-recipe', received: 'base, delta' },
    ],
    [
      'an index that is none',
      step('op: graft, model: moe, delta: ./d, expertLambda: { first: 1 }'),
      { code: 'unknown-key', line: 3, expected: 'a whole number' },
    ],
    ['no steps', 'steps: []\n', { code: 'bad-value', line: 1, column: 8 }],
    [
      'a step name that is a path',
      'steps: [{ id: ./x, op: delta, base: ./a, post: ./b }]\n',
      { code: 'bad-value', line: 1, column: 15 },
    ],
  ])('are refused: %s', (_, yaml, problem) => {
    expect(problemsOf(yaml)[0]).toMatchObject({ file: 'r.yml', column: expect.any(Number), ...problem })
  })
})

it('the published JSON Schema is that of the recipes', async () => {
  const file = fileURLToPath(new URL('../schema/recipe.schema.json', import.meta.url))
  expect(JSON.parse(await readFile(file, 'utf8'))).toEqual(recipeSchema())
})
