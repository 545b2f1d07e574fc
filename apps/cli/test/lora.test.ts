import { existsSync } from 'node:fs'
import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import {
  BASE,
  copyOf,
  createTemp,
  editJson,
  INSTRUCT,
  listing,
  problemOf,
  run,
  runJson,
  succeed,
  type Temp,
  tensorsOf,
  writeModel,
} from './support.js'

let temp: Temp
/** Of the trained trio's instruct, at rank 8. */
let adapter: string
beforeAll(async () => {
  temp = await createTemp()
  adapter = temp.at('adapter')
  await succeed(['lora', 'extract', BASE, INSTRUCT, '-o', adapter, '--rank', '8'])
})

const configOf = async (folder: string) =>
  JSON.parse(await readFile(join(folder, 'adapter_config.json'), 'utf8'))

describe('lora extract', () => {
  it('writes what peft reads, and says what was kept', async () => {
    const out = temp.at('energy')
    const result = await succeed([
      'lora',
      'extract',
      BASE,
      INSTRUCT,
      '-o',
      out,
      '--energy',
      '0.9',
      '--max-rank',
      '20',
    ])
    expect(result.matrices).toHaveLength(28)
    for (const { rank, energy, relativeError, exact } of result.matrices) {
      expect(exact).toBe(true)
      expect(rank === 20 || energy >= 0.9).toBe(true)
      expect(relativeError).toBeCloseTo(Math.sqrt(1 - energy), 12)
    }
    expect(result.adapted.energy).toBeGreaterThan(0.85)
    expect(result.delta.energy).toBeLessThan(result.adapted.energy)
    expect((await listing(out)).map((line) => line.split('/').at(-1)!.split(' ')[0])).toEqual([
      'adapter_config.json',
      'adapter_model.safetensors',
      'polygraft.json',
    ])
    const config = await configOf(out)
    expect(config).toMatchObject({ peft_type: 'LORA', r: 20, lora_alpha: 20, base_model_name_or_path: BASE })
    const name = 'base_model.model.model.layers.0.mlp.gate_proj.lora_A.weight'
    const { rank } = result.matrices.find(({ tensor }: { tensor: string }) => tensor.includes('0.mlp.gate'))
    expect((await tensorsOf(out)).get(name)!.type).toBe(`F32 [${rank},64]`)
  })

  it('in words: the worst matrices first, then all of it', async () => {
    const args = [
      'lora',
      'extract',
      BASE,
      INSTRUCT,
      '-o',
      temp.at('words'),
      '--rank',
      '4',
      '--top',
      '2',
      '--dtype',
      'BF16',
    ]
    const { code, stdout, stderr } = await run(args)
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout).toMatch(/matrix +rank +energy kept +relative error\n(model\S+ +4 .*\n){2}\.\.\. 26 more/)
    expect(stdout).toMatch(
      /28 matrices of rank 4: [\d.]+ % of their energy kept, relative error 0\.\d+\nof the whole delta: /,
    )
  })

  it('takes named modules, and writes nothing with --dry-run', async () => {
    const out = temp.at('none')
    const args = ['lora', 'extract', BASE, INSTRUCT, '-o', out, '--rank', '2', '--targets', 'q_proj,lm_head']
    const { parameters, problems } = await succeed([...args, '--dry-run'])
    expect([problems, existsSync(out)]).toEqual([[], false])
    const written = await succeed(args)
    expect(written.parameters).toBe(parameters)
    expect((await configOf(out)).target_modules).toEqual(['lm_head', 'q_proj'])
  })

  it('refuses what cannot be', async () => {
    const extract = (...args: string[]) => runJson(['lora', 'extract', BASE, ...args, '-o', temp.at('x')])
    expect((await extract(INSTRUCT)).code).toBe(2)
    expect((await extract(INSTRUCT, '--rank', '2', '--energy', '0.5')).code).toBe(2)
    const unknown = await extract(INSTRUCT, '--rank', '2', '--targets', 'zz_proj')
    expect([unknown.code, problemOf(unknown.json.error.problems, 'unknown-module').expected]).toEqual([
      1,
      'down_proj, embed_tokens, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj',
    ])
    const wide = await extract(INSTRUCT, '--energy', '1.5')
    expect([wide.code, wide.json.error.code]).toEqual([1, 'bad-energy'])
    const same = await extract(BASE, '--energy', '0.5')
    expect([same.code, same.json.error.code]).toEqual([1, 'nothing-to-adapt'])
    const small = await extract(INSTRUCT, '--rank', '2', '--max-shard-size', '10kB')
    expect([small.code, small.json.error.code]).toEqual([1, 'bad-shard-size'])
    expect(existsSync(temp.at('x'))).toBe(false)
  })
})

describe('lora apply', () => {
  it('comes near to post, the same bytes for any shards, threads, budget and in tasks', async () => {
    const whole = temp.at('merged')
    await succeed(['lora', 'apply', BASE, adapter, '-o', whole])
    const { total } = await succeed(['diff', whole, INSTRUCT])
    const before = await succeed(['diff', BASE, INSTRUCT])
    expect(total.norm).toBeLessThan(0.8 * before.total.norm)
    const expected = await tensorsOf(whole)
    const sharded = temp.at('sharded')
    const limits = ['--max-shard-size', '50kB', '--threads', '2', '--memory', '256MiB']
    await succeed(['lora', 'apply', BASE, adapter, '-o', sharded, ...limits])
    expect(await tensorsOf(sharded)).toEqual(expected)
    const [planned, plan] = [temp.at('planned'), temp.at('plan.json')]
    await succeed([
      'lora',
      'apply',
      BASE,
      adapter,
      '-o',
      planned,
      '--plan',
      plan,
      '--max-shard-size',
      '200kB',
    ])
    for (const task of ['1/2', '2/2']) await succeed(['run', plan, '--task', task])
    await succeed(['finish', plan])
    expect(await tensorsOf(planned)).toEqual(expected)
  })

  it('scales: nothing at 0, and takes off at -1 what 1 adds, up to roundings', async () => {
    const [zero, back] = [temp.at('zero'), temp.at('back')]
    await succeed(['lora', 'apply', BASE, adapter, '-o', zero, '--scale', '0'])
    expect(await tensorsOf(zero)).toEqual(await tensorsOf(BASE))
    await succeed(['lora', 'apply', temp.at('merged'), adapter, '-o', back, '--scale', '-1'])
    const { total } = await succeed(['diff', BASE, back])
    expect(total.relativeNorm).toBeLessThan(0.004)
  })

  it('refuses a DoRA without magnitudes, module by module', async () => {
    const dora = await copyOf(adapter, temp.at('dora'))
    await editJson(join(dora, 'adapter_config.json'), (config) =>
      Object.assign(config, { use_dora: true, target_modules: 'all-linear' }),
    )
    const { code, json } = await runJson(['lora', 'apply', BASE, dora, '-o', temp.at('x')])
    expect([code, json.error.code, json.error.problems.length]).toEqual([1, 'missing-factor', 28])
  })

  it('refuses all that does not fit, and writes nothing', async () => {
    const tiny = await writeModel(temp.at('tiny'))
    const other = await runJson(['lora', 'apply', tiny, adapter, '-o', temp.at('y')])
    expect(other.code).toBe(1)
    const codes = new Set(other.json.error.problems.map(({ code }: { code: string }) => code))
    expect([...codes].sort()).toEqual(['shape-mismatch', 'unknown-module'])
    expect(other.json.error.problems.length).toBe(28)
    const broken = await copyOf(adapter, temp.at('broken'))
    await editJson(join(broken, 'adapter_config.json'), (config) => {
      delete config.lora_alpha
      config.layer_replication = [[0, 2]]
    })
    const { json } = await runJson(['lora', 'apply', BASE, broken, '-o', temp.at('y')])
    expect(json.error.problems.map(({ message }: { message: string }) => message.split(/[ :]/)[0])).toEqual([
      'lora_alpha',
      'layer_replication',
    ])
    const model = await runJson(['lora', 'apply', BASE, INSTRUCT, '-o', temp.at('y')])
    expect(model.json.error.code).toBe('not-an-adapter')
    const pickled = await copyOf(adapter, temp.at('pickled'))
    await rename(join(pickled, 'adapter_model.safetensors'), join(pickled, 'adapter_model.bin'))
    expect((await runJson(['lora', 'apply', BASE, pickled, '-o', temp.at('y')])).json.error.code).toBe(
      'pickle',
    )
    expect(existsSync(temp.at('y'))).toBe(false)
  })

  it('warns of modules that the configuration names and that have no tensors', async () => {
    const few = await copyOf(adapter, temp.at('few'))
    const config = await configOf(few)
    await writeFile(
      join(few, 'adapter_config.json'),
      JSON.stringify({ ...config, target_modules: [...config.target_modules, 'lm_head'] }),
    )
    const { warnings } = await succeed(['lora', 'apply', BASE, few, '-o', temp.at('z'), '--dry-run'])
    expect(warnings.map(({ tensor }: { tensor: string }) => tensor)).toEqual(['lm_head.weight'])
  })
})

it.each(['extract', 'apply'])('lora %s --help has an example', async (command) => {
  const { code, stdout } = await run(['lora', command, '--help'])
  expect(code).toBe(0)
  expect(stdout).toMatch(new RegExp(`\\n {2}\\$ polygraft lora ${command} `))
  for (const option of ['--dry-run', '--plan', '--json', '--force']) expect(stdout).toContain(option)
})
