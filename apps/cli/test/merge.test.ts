import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { evaluate } from '@polygraft/engine'
import { openFolder } from '@polygraft/tensor-io/node'
import { describe, expect, it } from 'vitest'
import { BASE, createTemp, INSTRUCT, run, runJson, succeed, tensorsOf } from './support.js'

/** A recipe in a folder of its own, and where to write. */
async function recipe(text: string) {
  const folder = (await createTemp()).dir
  const file = join(folder, 'recipe.yml')
  await writeFile(file, text)
  return { file, out: join(folder, 'out'), folder }
}

async function values(folder: string, name: string): Promise<Float32Array> {
  const { tensors, sources } = await openFolder(folder)
  const bytes = await evaluate({ ...tensors.get(name)!, dtype: 'F32' }, sources)
  return new Float32Array(bytes.buffer)
}
const NAME = 'model.layers.1.mlp.up_proj.weight'
const bf16 = (x: number) => {
  const view = new DataView(new ArrayBuffer(4))
  view.setFloat32(0, x)
  const bits = view.getUint32(0)
  view.setUint32(0, ((bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff0000) >>> 0)
  return view.getFloat32(0)
}

describe('merge', () => {
  it('averages with filters and gradients, as computed by hand', async () => {
    const { file, out } = await recipe(`
merge_method: linear
models:
  - model: ${BASE}
    parameters: { weight: 1 }
  - model: ${INSTRUCT}
    parameters:
      weight:
        - { filter: mlp, value: [0, 3] }
        - { value: 0 }
dtype: bfloat16
`)
    await succeed(['merge', file, '-o', out])
    const [base, instruct, merged] = [
      await values(BASE, NAME),
      await values(INSTRUCT, NAME),
      await values(out, NAME),
    ]
    // Layer 1 of 4 lies a third of the way from 0 to 3: equal weights.
    const mean = base.map((x, i) => bf16(Math.fround(Math.fround(x * 0.5) + Math.fround(instruct[i]! * 0.5))))
    expect([...merged]).toEqual([...mean])
    const other = 'model.layers.1.self_attn.q_proj.weight'
    expect(await values(out, other)).toEqual(await values(BASE, other))
    const manifest = JSON.parse(await readFile(join(out, 'polygraft.json'), 'utf8'))
    expect(manifest.recipe.at(-1)).toMatchObject({
      op: 'recipe',
      dialect: 'mergekit',
      recipe: { merge_method: 'linear' },
    })
  })

  it('stacks layers of several models (a frankenmerge)', async () => {
    const { file, out } = await recipe(`
merge_method: linear
parameters: { weight: 1 }
slices:
  - sources: [{ model: ${BASE}, layer_range: [0, 3] }]
  - sources: [{ model: ${INSTRUCT}, layer_range: [1, 4] }]
`)
    const { json } = await runJson(['merge', file, '-o', out])
    expect(json.skipped).toContainEqual({
      tensor: NAME.replace('.1.', '.3.'),
      reason: `layer 3 is in no slice (${BASE})`,
    })
    expect(JSON.parse(await readFile(join(out, 'config.json'), 'utf8')).num_hidden_layers).toBe(6)
    expect(await values(out, NAME.replace('.1.', '.4.'))).toEqual(
      await values(INSTRUCT, NAME.replace('.1.', '.2.')),
    )
    expect(await values(out, 'model.embed_tokens.weight')).toEqual(
      await values(BASE, 'model.embed_tokens.weight'),
    )
    expect(await values(out, 'lm_head.weight')).toEqual(await values(INSTRUCT, 'lm_head.weight'))
  })

  it('takes what it measured into a plan, whose tasks write the same bytes', async () => {
    const text = `
merge_method: ties
base_model: ${BASE}
models:
  - model: ${INSTRUCT}
    parameters: { weight: 0.7, density: 0.4 }
`
    const { file, out, folder } = await recipe(text)
    await succeed(['merge', file, '-o', out])
    const plan = join(folder, 'plan.json')
    const other = join(folder, 'other')
    await succeed(['merge', file, '-o', other, '--plan', plan, '--max-shard-size', '100KB'])
    await succeed(['run', plan, '--task', '1/2'])
    await succeed(['run', plan, '--task', '2/2'])
    await succeed(['finish', plan])
    expect(await values(other, NAME)).toEqual(await values(out, NAME))
    const [base, merged] = [await values(BASE, NAME), await values(out, NAME)]
    const changed = merged.filter((x, i) => x !== base[i]).length
    expect(changed).toBeGreaterThan(0)
    expect(changed).toBeLessThanOrEqual(Math.floor(0.4 * base.length))
  })

  it('runs several steps with the bytes of as many commands, and nothing between them', async () => {
    const { file, out, folder } = await recipe(`
steps:
  - { id: moe, op: upcycle, model: ${BASE}, languages: [c, d], seed: 7 }
  - { id: out, op: graft, model: moe, base: ${BASE}, post: ${INSTRUCT}, expertLambda: { 1: 0.5 } }
`)
    const [upcycled, grafted] = [join(folder, 'upcycled'), join(folder, 'grafted')]
    await Promise.all([
      succeed(['merge', file, '-o', out]),
      succeed(['upcycle', BASE, '-o', upcycled, '--languages', 'c,d', '--seed', '7']),
    ])
    const pair = ['--base', BASE, '--post', INSTRUCT]
    await succeed(['graft', upcycled, '-o', grafted, ...pair, '--expert-lambda', '1=0.5'])
    for (const name of await readdir(grafted))
      if (name !== 'polygraft.json')
        expect(await readFile(join(out, name)), name).toEqual(await readFile(join(grafted, name)))
    expect((await readdir(folder)).sort()).toEqual(['grafted', 'out', 'recipe.yml', 'upcycled'])
    const manifest = JSON.parse(await readFile(join(out, 'polygraft.json'), 'utf8'))
    expect(manifest.experts).toEqual(['original', 'c', 'd'])
    expect(manifest.recipe.map(({ op }: { op: string }) => op)).toEqual(['recipe', 'upcycle', 'graft'])
  })

  it('takes a config of mergekit-moe as upcycle --config, with the experts of --expert-from', async () => {
    const { file, out, folder } = await recipe(`
base_model: ${BASE}
gate_mode: random
experts: [{ source_model: ${BASE} }, { source_model: ${INSTRUCT} }]
`)
    const other = join(folder, 'other')
    await Promise.all([
      succeed(['upcycle', '--config', file, '-o', out]),
      succeed(['upcycle', BASE, '--experts', '2', '--expert-from', `1=${INSTRUCT}`, '-o', other]),
    ])
    const [config, options] = await Promise.all([tensorsOf(out), tensorsOf(other)])
    const differing = [...options.keys()].filter(
      (name) => !config.get(name)!.bytes.equals(options.get(name)!.bytes),
    )
    expect(differing).toEqual([...options.keys()].filter((name) => /\.gate\.weight$/.test(name)))
    expect(differing).toHaveLength(4)
    const both = await run(['upcycle', BASE, '--config', file, '-o', join(folder, 'x')])
    expect(both.code).toBe(2)
    const option = await run(['upcycle', '--config', file, '--granularity', '2', '-o', join(folder, 'x')])
    expect(option).toMatchObject({ code: 2, stderr: expect.stringContaining('--granularity') })
    const allow = await run(['upcycle', '--config', file, '--allow', 'score=unused', '-o', join(folder, 'x')])
    expect(allow).toMatchObject({ code: 2, stderr: expect.stringContaining('--allow') })
    await writeFile(file, 'merge_method: linear\nmodels: [{ model: ./x, parameters: { weight: 1 } }]\n')
    const merge = await runJson(['upcycle', '--config', file, '-o', join(folder, 'x')])
    expect(merge.json.error.problems).toMatchObject([
      { code: 'bad-recipe', next: 'Give it to polygraft merge.' },
    ])
  })

  it('makes the gates of mergekit-moe of prompts, and looks at them in a dry run', async () => {
    const text = (mode: string, prompt = 'kona rina dima') => `
base_model: ${BASE}
gate_mode: ${mode}
dtype: float32
experts:
  - { source_model: ${BASE}, positive_prompts: [${prompt}, rina], negative_prompts: [dima] }
  - { source_model: ${INSTRUCT}, positive_prompts: [dima rina] }
`
    const gates: Record<string, Float32Array> = {}
    for (const mode of ['cheap_embed', 'hidden', 'hidden_avg']) {
      const { file, out } = await recipe(text(mode))
      await succeed(['upcycle', '--config', file, '-o', out])
      gates[mode] = await values(out, 'model.layers.2.block_sparse_moe.gate.weight')
      for (const expert of [0, 1])
        expect(Math.hypot(...gates[mode].subarray(expert * 64, (expert + 1) * 64))).toBeCloseTo(1, 5)
    }
    expect(gates.hidden).not.toEqual(gates.hidden_avg)
    expect(gates.hidden).not.toEqual(gates.cheap_embed)
    const dry = await recipe(text('hidden'))
    await succeed(['upcycle', '--config', dry.file, '-o', dry.out, '--dry-run'])
    expect(existsSync(dry.out)).toBe(false)
    const long = await recipe(text('hidden', Array(300).fill('kona').join(' ')))
    const ended = await runJson(['upcycle', '--config', long.file, '-o', long.out])
    expect(ended.json.error.problems).toMatchObject([{ code: 'bad-prompt', file: long.file, line: 5 }])
    expect(existsSync(long.out)).toBe(false)
  })

  it('finds paths beside the recipe', async () => {
    const { file, out, folder } = await recipe(
      'merge_method: linear\nmodels: [{ model: ./there, parameters: { weight: 1 } }]\n',
    )
    await mkdir(join(folder, 'there'))
    const ended = await run(['merge', file, '-o', out])
    expect(ended.code).toBe(1)
    expect(ended.stderr).toContain(`${file}:2:`)
  })

  const models = `models:\n  - model: ${INSTRUCT}\n    parameters: { weight: 1 }\n`
  it.each([
    ['an unknown key', `merge_method: linear\n${models}bas_model: x\n`, 'unknown-key', [5, 1], 'base_model'],
    ['an unknown method', `merge_method: tiess\n${models}`, 'bad-value', [1, 15], 'ties'],
    [
      'an unknown parameter',
      `merge_method: ties\nbase_model: ${BASE}\nparameters: { densty: 1 }\n${models}`,
      'unknown-key',
      [3, 15],
      'density',
    ],
    ['a missing base', `merge_method: ties\n${models}`, 'missing-base', [1, 1], undefined],
    [
      'a missing parameter',
      `merge_method: linear\nmodels:\n  - model: ${INSTRUCT}\n`,
      'missing-key',
      [3, 5],
      undefined,
    ],
    [
      'a density of 0',
      `merge_method: ties\nbase_model: ${BASE}\nparameters: { density: 0 }\n${models}`,
      'bad-value',
      [3, 24],
      undefined,
    ],
    [
      'weights that sum to zero',
      `merge_method: linear\n${models}  - model: ${BASE}\n    parameters: { weight: -1 }\n`,
      'zero-weights',
      [4, 27],
      undefined,
    ],
    ['no YAML', 'merge_method: [\n', 'bad-yaml', undefined, undefined],
    ['no kind of recipe', 'merge_metod: linear\n', 'bad-recipe', [1, 1], 'merge_method'],
  ])('refuses %s, and writes nothing', async (_, text, code, at, word) => {
    const { file, out } = await recipe(text)
    const ended = await runJson(['merge', file, '-o', out])
    expect(ended.code).toBe(1)
    const [problem] = ended.json.error.problems
    expect(problem).toMatchObject({ code, file })
    if (at) expect([problem.line, problem.column]).toEqual(at)
    if (word) expect(problem.next).toBe(`Did you mean ${word}?`)
    expect(existsSync(out)).toBe(false)
  })
})
