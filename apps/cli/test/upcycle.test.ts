import { cp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import {
  createTemp,
  type ModelOptions,
  problemOf,
  run,
  runJson,
  succeed,
  type Temp,
  tensorsOf,
  writeModel,
} from './support.js'

let temp: Temp
const at = (name: string) => temp.at(name)
const qwen2 = { model_type: 'qwen2', architectures: ['Qwen2ForCausalLM'] }
beforeAll(async () => {
  temp = await createTemp()
  await Promise.all([
    writeModel(at('base'), { config: qwen2, seed: 1 }),
    writeModel(at('post'), { config: qwen2, seed: 2 }),
    writeModel(at('other'), { config: qwen2, seed: 3 }),
  ])
})

const upcycle = (out: string, ...flags: readonly string[]) =>
  succeed(['upcycle', at('base'), '-o', at(out), '--experts', '2', ...flags])

describe.concurrent.each([
  ['finer', ['--granularity', '3']],
  ['dense', ['--dense-layers', '1-1']],
  ['shared', ['--shared-expert', '--granularity', '2']],
  ['granite', ['--target', 'granitemoe', '--granularity', '2']],
  ['drop', ['--drop', '0.5']],
  ['all', ['--granularity', '2', '--dense-layers', '0', '--shared-expert', '--drop', '0.34']],
])('upcycle: %s', (name, flags) => {
  it('verifies, and so does a graft onto it without its own recipe', async () => {
    await upcycle(name, ...flags)
    const report = await succeed(['verify', at(name), '--base', at('base')])
    expect(report.checks.map((check: { name: string }) => check.name)).toContain('experts')
    await cp(at(name), at(`${name}-cpt`), { recursive: true })
    await rm(join(at(`${name}-cpt`), 'polygraft.json'))
    const pair = ['--base', at('base'), '--post', at('post')]
    const grafted = ['graft', at(`${name}-cpt`), '-o', at(`${name}-graft`), ...pair]
    await succeed([...grafted, '--upcycled', at(name)])
    await succeed(['verify', at(`${name}-graft`), ...pair, '--cpt', at(`${name}-cpt`)])
  })
})

describe.concurrent('upcycle', () => {
  it('--drop measures what it replaces, unless it is a dry run', async () => {
    const { dryRun, problems } = await upcycle('dry', '--drop', '0.5', '--dry-run')
    expect({ dryRun, problems }).toEqual({ dryRun: true, problems: [] })
    const { recipe } = await upcycle('dropped', '--drop', '0.5')
    const { kind, rate, moments } = recipe[0].expertInit
    expect({ kind, rate }).toEqual({ kind: 'drop', rate: 0.5 })
    expect(Object.keys(moments)).toHaveLength(2 * 3)
    // Weights are from 1 to 2 in magnitude, of either sign.
    for (const [mean, std] of Object.values<[number, number]>(moments)) {
      expect(Math.abs(mean)).toBeLessThan(1.5)
      expect(std).toBeGreaterThan(0.5)
    }
    const [base, moe] = await Promise.all([tensorsOf(at('base')), tensorsOf(at('dropped'))])
    const rows = (bytes: Buffer) =>
      Array.from({ length: 6 }, (_, row) => bytes.subarray(row * 16, row * 16 + 16))
    const dense = rows(base.get('model.layers.0.mlp.gate_proj.weight')!.bytes)
    const redrawn = [0, 1].map((e) => {
      const expert = rows(moe.get(`model.layers.0.mlp.experts.${e}.gate_proj.weight`)!.bytes)
      return expert.filter((row, i) => !row.equals(dense[i]!)).length
    })
    expect(redrawn).toEqual([0, 3])
  })

  it('--expert-from takes an expert from another model, --others mean all else from both', async () => {
    const from = ['--expert-from', `1=${at('other')}`]
    await upcycle('foreign', ...from)
    const [other, moe] = await Promise.all([tensorsOf(at('other')), tensorsOf(at('foreign'))])
    expect(moe.get('model.layers.1.mlp.experts.1.up_proj.weight')).toEqual(
      other.get('model.layers.1.mlp.up_proj.weight'),
    )
    const report = await succeed(['verify', at('foreign'), '--base', at('base'), ...from])
    expect(report.checks.find(({ name }: { name: string }) => name === 'experts').detail).not.toContain(
      'not given',
    )
    const wrong = await runJson([
      'verify',
      at('foreign'),
      '--base',
      at('base'),
      '--expert-from',
      `1=${at('post')}`,
    ])
    expect(wrong.code).toBe(1)
    const { recipe } = await upcycle('mean', ...from, '--others', 'mean')
    expect(recipe[0]).toMatchObject({ others: 'mean' })
    const mean = await tensorsOf(at('mean'))
    const norm = 'model.norm.weight'
    expect(mean.get(norm)).not.toEqual(moe.get(norm))
  })

  it.each([
    [['--granularity', '4'], 'bad-option', 'divisor of the intermediate size 6'],
    [['--dense-layers', '0,1'], 'bad-option', 'fewer than 2 layers'],
    [['--dense-layers', '2'], 'bad-option', '0 to 1'],
    [['--dense-layers', '0', '--target', 'granitemoe'], 'target-cannot-hold', undefined],
    [['--shared-expert', '--target', 'granitemoe'], 'target-cannot-hold', undefined],
    [['--drop', '1.5'], 'bad-option', undefined],
    [['--others', 'mean'], 'bad-option', undefined],
    [['--expert-from', '2=base'], 'bad-option', 'experts from 0 to 1'],
  ])('%j is refused before anything is read', async (flags, code, expected) => {
    const args = ['upcycle', 'base', '-o', 'refused', '--experts', '2', ...flags]
    const { code: exit, json } = await runJson(args, { cwd: temp.dir })
    expect(exit).toBe(1)
    expect(problemOf(json.error.problems, code).expected ?? '').toContain(expected ?? '')
  })

  it.each([
    [['--dense-layers', '3-1'], /ranges such as/],
    [['--dense-layers', '1,0-2'], /given twice/],
    [['--expert-from', 'other'], /Expected an index/],
    [['--expert-from', '1=a', '--expert-from', '1=b'], /given twice/],
    [['--drop', '0.5', '--expert-noise', '0.1'], /cannot be used with/],
  ])('%j is no usable argument', async (flags, message) => {
    const { code, stderr } = await run(['upcycle', 'base', '-o', 'bad', '--experts', '2', ...flags])
    expect([code, stderr]).toEqual([2, expect.stringMatching(message)])
  })

  it('a graft whose cpt lost its recipe says how to name it', async () => {
    await upcycle('lost', '--granularity', '2')
    await rm(join(at('lost'), 'polygraft.json'))
    const { json } = await runJson([
      'graft',
      at('lost'),
      '-o',
      at('x'),
      '--base',
      at('base'),
      '--post',
      at('post'),
    ])
    expect(problemOf(json.error.problems, 'recipe-missing').next).toContain('--upcycled')
  })
})

describe.concurrent('expand', () => {
  it('inserts layers that verify, and a graft leaves them alone', async () => {
    const { recipe } = await succeed(['expand', at('base'), '-o', at('deep'), '--blocks', '1'])
    expect(recipe).toEqual([expect.objectContaining({ op: 'expand', after: [1], layers: 2 })])
    await succeed(['verify', at('deep'), '--base', at('base')])
    const pair = ['--base', at('base'), '--post', at('post')]
    await succeed(['graft', at('deep'), '-o', at('deep-graft'), ...pair])
    await succeed(['verify', at('deep-graft'), ...pair, '--cpt', at('deep')])
    const [base, post, grafted] = await Promise.all([at('base'), at('post'), at('deep-graft')].map(tensorsOf))
    for (const [name, tensor] of grafted!) {
      const wanted = /layers\.2\./.test(name)
        ? base!.get(name.replace('layers.2', 'layers.1'))
        : post!.get(name)
      if (/layers\.2\.(self_attn\.o|mlp\.down)_proj/.test(name))
        expect(tensor.bytes.every((byte) => byte === 0)).toBe(true)
      else expect(tensor, name).toEqual(wanted)
    }
  })

  it('wants to know how many, and dense models', async () => {
    expect((await run(['expand', at('base'), '-o', at('none')])).code).toBe(2)
    await upcycle('mixture')
    const { json } = await runJson(['expand', at('mixture'), '-o', at('none'), '--blocks', '1'])
    expect(problemOf(json.error.problems, 'already-moe').next).toContain('dense base')
  })
})

describe.concurrent('--allow', () => {
  it('leaves out what no model of the family has, with the reason in the manifest', async () => {
    const edit: ModelOptions['edit'] = (tensors) =>
      tensors.set('score.weight', { dtype: 'BF16', shape: [2, 8] })
    const [base, post] = await Promise.all(
      [1, 2].map((seed) => writeModel(at(`scored-${seed}`), { config: qwen2, seed, edit })),
    )
    const allow = ['--allow', 'score.*=a head for ranking']
    const args = ['upcycle', base!, '-o', at('allowed'), '--experts', '2']
    problemOf((await runJson(args)).json.error.problems, 'unexpected-tensor')
    const { skipped } = await succeed([...args, ...allow])
    expect(skipped).toEqual([{ tensor: 'score.weight', reason: 'a head for ranking (base)' }])
    const pair = ['--base', base!, '--post', post!]
    await succeed(['graft', at('allowed'), '-o', at('allowed-graft'), ...pair, ...allow])
    await succeed(['verify', at('allowed'), '--base', base!])
    await succeed(['verify', at('allowed-graft'), ...pair, '--cpt', at('allowed')])
    await succeed(['expand', base!, '-o', at('allowed-deep'), '--blocks', '1', ...allow])
    await succeed(['verify', at('allowed-deep'), '--base', base!])
  })

  it('wants a reason', async () => {
    const { code, stderr } = await run([
      'upcycle',
      at('base'),
      '-o',
      at('x'),
      '--experts',
      '2',
      '--allow',
      'score',
    ])
    expect([code, stderr]).toEqual([2, expect.stringContaining('a reason')])
  })
})
