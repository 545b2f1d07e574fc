import { execFileSync } from 'node:child_process'
import { mkdir, readdir, readFile, rename, rm, symlink, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Problem } from '@polygraft/tensor'
import { beforeAll, describe, expect, it } from 'vitest'
import {
  BASE,
  BIN,
  CPT,
  copyOf,
  createTemp,
  editJson,
  INSTRUCT,
  listing,
  problemOf,
  run,
  runJson,
  start,
  startAny,
  succeed,
  type Temp,
  writeModel,
  writeSparseModel,
} from './support.js'

const INDEX = 'model.safetensors.index.json'
const SHARD_1 = 'model-00001-of-00002.safetensors'
const SHARD_2 = 'model-00002-of-00002.safetensors'
const Q_PROJ = 'model.layers.0.self_attn.q_proj.weight'

interface Row {
  /** Makes the inputs, and gives the arguments without -o. */
  readonly make: (temp: Temp) => Promise<string[]>
  /** What the problem of that code must say. */
  readonly problem: Partial<Record<keyof Problem, unknown>> & { readonly code: string }
  /** How many problems of that code there are. Default 1. */
  readonly count?: number
}

const upcycle = (dir: string) => ['upcycle', dir, '--languages', 'c,d']
const graft = (cpt: string, base: string, post: string) => ['graft', cpt, '--base', base, '--post', post]

/** A copy of the base with one thing wrong with it, to be upcycled. */
function spoiled(edit: (dir: string) => Promise<unknown>): Row['make'] {
  return async ({ at }) => {
    const dir = await copyOf(BASE, at('base'))
    await edit(dir)
    return upcycle(dir)
  }
}

/** Rewrites the header of a safetensors file; the data stays. */
async function editHeader(
  path: string,
  edit: (header: Record<string, { data_offsets: [number, number] }>) => void,
) {
  const bytes = await readFile(path)
  const length = Number(bytes.readBigUInt64LE())
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString())
  edit(header)
  const text = Buffer.from(JSON.stringify(header))
  const size = Buffer.alloc(8)
  size.writeBigUInt64LE(BigInt(text.length))
  await writeFile(path, Buffer.concat([size, text, bytes.subarray(8 + length)]))
}

function weightMap(file: string): Row['make'] {
  return spoiled((dir) =>
    editJson(join(dir, INDEX), (index) => {
      ;(index.weight_map as Record<string, string>)[Q_PROJ] = file
    }),
  )
}

/** Tiny models of one vocabulary each, to be grafted. */
async function trio({ at }: Temp, tokens: Record<'base' | 'post' | 'cpt', string>): Promise<string[]> {
  const [base, post, cpt] = await Promise.all(
    (['base', 'post', 'cpt'] as const).map((role, seed) =>
      writeModel(at(role), { seed, tokens: [...tokens[role]], config: { vocab_size: tokens[role].length } }),
    ),
  )
  return graft(cpt!, base!, post!)
}

const ROWS: Record<string, Row> = {
  'a shard cut short': {
    make: spoiled((dir) => truncate(join(dir, SHARD_1), 200_000)),
    problem: {
      code: 'truncated',
      file: expect.stringMatching(`base/${SHARD_1}$`),
      expected: '289848 bytes',
      received: '200000 bytes',
      next: expect.any(String),
    },
  },
  'a shard cut short within its header': {
    make: spoiled((dir) => truncate(join(dir, SHARD_2), 100)),
    problem: { code: 'truncated', file: expect.stringMatching(SHARD_2) },
  },
  'an empty shard': {
    make: spoiled((dir) => truncate(join(dir, SHARD_2), 0)),
    problem: { code: 'truncated', received: '0 bytes' },
  },
  'overlapping tensors': {
    make: spoiled((dir) =>
      editHeader(join(dir, SHARD_1), (header) => {
        const tensors = Object.values(header).filter(({ data_offsets }) => data_offsets)
        const last = tensors.sort((a, b) => a.data_offsets[0] - b.data_offsets[0]).at(-1)!
        last.data_offsets = [last.data_offsets[0] - 64, last.data_offsets[1] - 64]
      }),
    ),
    problem: {
      code: 'overlap',
      tensor: expect.any(String),
      file: expect.stringMatching(SHARD_1),
      received: expect.stringMatching('offset'),
    },
  },
  'a web page saved as weights': {
    make: spoiled((dir) => writeFile(join(dir, SHARD_1), '<!DOCTYPE html><html><body>404</body></html>')),
    problem: { code: 'bad-header', next: expect.stringMatching('web page') },
  },
  'missing shards': {
    make: spoiled(async (dir) => {
      await rm(join(dir, SHARD_1))
      await rm(join(dir, SHARD_2))
    }),
    problem: {
      code: 'missing-shard',
      file: expect.stringMatching(SHARD_1),
      next: expect.stringMatching('Download'),
    },
    count: 2,
  },
  'a weight_map that leaves the folder by ../': {
    make: weightMap(`../instruct/${SHARD_1}`),
    problem: {
      code: 'path-escape',
      file: expect.stringMatching(INDEX),
      tensor: Q_PROJ,
      received: expect.stringMatching(/\.\.\//),
    },
  },
  'a weight_map that leaves the folder by an absolute path': {
    make: weightMap('/etc/model.safetensors'),
    problem: { code: 'path-escape', tensor: Q_PROJ },
  },
  'a weight_map that leaves the folder by a backslash': {
    make: weightMap('..\\model.safetensors'),
    problem: { code: 'path-escape', tensor: Q_PROJ },
  },
  'a weight_map that leaves the folder by a link': {
    make: spoiled(async (dir) => {
      await rename(join(dir, SHARD_1), join(dir, '..', 'elsewhere.safetensors'))
      await symlink(join(dir, '..', 'elsewhere.safetensors'), join(dir, SHARD_1))
    }),
    problem: {
      code: 'path-escape',
      file: expect.stringMatching(SHARD_1),
      received: expect.stringMatching('elsewhere'),
    },
  },
  'a tensor that the index knows and no shard has': {
    make: spoiled((dir) =>
      editJson(join(dir, INDEX), (index) => {
        ;(index.weight_map as Record<string, string>)['model.extra.weight'] = SHARD_1
      }),
    ),
    problem: { code: 'missing-tensor', tensor: 'model.extra.weight' },
  },
  'an index that is no JSON': {
    make: spoiled((dir) => writeFile(join(dir, INDEX), '{"weight_map": {')),
    problem: { code: 'bad-json', file: expect.stringMatching(INDEX) },
  },
  'a config with a key twice': {
    make: spoiled((dir) => writeFile(join(dir, 'config.json'), '{"vocab_size": 1, "vocab_size": 2}')),
    problem: { code: 'bad-json', file: expect.stringMatching('base/config.json') },
  },
  'only pickle files': {
    make: async ({ at }) => {
      await mkdir(at('base'))
      await writeFile(at('base/config.json'), await readFile(join(BASE, 'config.json')))
      for (const name of ['pytorch_model-00001-of-00002.bin', 'pytorch_model-00002-of-00002.bin'])
        await writeFile(at(`base/${name}`), 'x')
      return upcycle(at('base'))
    },
    problem: { code: 'pickle', expected: 'safetensors', next: expect.stringMatching('save_pretrained') },
    count: 2,
  },
  'an empty folder': {
    make: async ({ at }) => {
      await mkdir(at('base'))
      return upcycle(at('base'))
    },
    problem: { code: 'no-weights', received: expect.stringMatching('base') },
  },
  'no such folder': {
    make: async ({ at }) => upcycle(at('nothing')),
    problem: { code: 'missing-file', file: expect.stringMatching('nothing') },
  },
  'something that is no checkpoint': {
    make: async () => upcycle(join(BASE, 'config.json')),
    problem: { code: 'not-a-checkpoint' },
  },
  'missing tensors': {
    make: async ({ at }) =>
      upcycle(
        await writeModel(at('base'), {
          edit: (tensors) => {
            tensors.delete('model.layers.1.mlp.up_proj.weight')
            tensors.delete('model.norm.weight')
          },
        }),
      ),
    problem: { code: 'missing-tensor', tensor: expect.stringMatching(/up_proj|model\.norm/) },
    count: 2,
  },
  'shapes that differ from the config': {
    make: async ({ at }) =>
      upcycle(
        await writeModel(at('base'), {
          edit: (tensors) => {
            for (const name of ['model.layers.0.mlp.up_proj.weight', 'model.layers.1.mlp.up_proj.weight'])
              tensors.set(name, { dtype: 'BF16', shape: [7, 8] })
          },
        }),
      ),
    problem: {
      code: 'shape-mismatch',
      tensor: expect.stringMatching('up_proj'),
      expected: expect.stringMatching('6'),
      received: expect.stringMatching('7'),
    },
    count: 2,
  },
  'tensors in FP8': {
    make: async ({ at }) =>
      upcycle(
        await writeModel(at('base'), {
          edit: (tensors) => {
            for (const name of ['model.layers.0.mlp.up_proj.weight', 'model.layers.1.mlp.up_proj.weight'])
              tensors.set(name, { dtype: 'F8_E4M3', shape: [6, 8] })
          },
        }),
      ),
    problem: {
      code: 'not-float',
      tensor: expect.stringMatching('up_proj'),
      received: expect.stringMatching('F8_E4M3'),
      next: expect.any(String),
    },
    count: 2,
  },
  'a quantised checkpoint': {
    make: spoiled((dir) =>
      editJson(join(dir, 'config.json'), (config) =>
        Object.assign(config, { quantization_config: { bits: 4 } }),
      ),
    ),
    problem: { code: 'quantised', next: expect.any(String) },
  },
  'a quantised instruct model': {
    make: async ({ at }) => {
      const post = await copyOf(INSTRUCT, at('post'))
      await editJson(join(post, 'config.json'), (config) =>
        Object.assign(config, { quantization_config: { bits: 4 } }),
      )
      return graft(CPT, BASE, post)
    },
    problem: { code: 'quantised', message: expect.stringMatching('post'), next: expect.any(String) },
  },
  'an unsupported family': {
    make: spoiled((dir) =>
      editJson(join(dir, 'config.json'), (config) => Object.assign(config, { model_type: 'gemma2' })),
    ),
    problem: {
      code: 'unsupported-family',
      message: expect.stringMatching('gemma2'),
      expected: expect.stringMatching('llama'),
      next: expect.any(String),
    },
  },
  'a config without a field that is needed': {
    make: spoiled((dir) => editJson(join(dir, 'config.json'), (config) => delete config.hidden_size)),
    problem: { code: 'bad-config', message: expect.stringMatching('hidden_size') },
  },
  'a family that cannot become the target': {
    make: async () => [...upcycle(BASE), '--target', 'qwen3_moe'],
    problem: {
      code: 'target-cannot-hold',
      expected: expect.stringMatching('mixtral'),
      next: expect.any(String),
    },
  },
  'options that do not go together': {
    make: async () => ['upcycle', BASE, '--experts', '2', '--languages', 'a,b', '--top-k', '3'],
    problem: { code: 'bad-option', next: expect.any(String) },
    count: 2,
  },
  'a config that disagrees': {
    make: async ({ at }) => {
      const post = await copyOf(INSTRUCT, at('post'))
      await editJson(join(post, 'config.json'), (config) =>
        Object.assign(config, { rope_theta: 5e5, rms_norm_eps: 1e-6 }),
      )
      return graft(CPT, BASE, post)
    },
    problem: {
      code: 'config-mismatch',
      message: expect.stringMatching('post'),
      expected: expect.any(String),
      received: expect.any(String),
    },
    count: 2,
  },
  'base and post of other shapes': {
    make: async ({ at }) => [
      'delta',
      await writeModel(at('base')),
      await writeModel(at('post'), { config: { intermediate_size: 12 } }),
    ],
    problem: {
      code: 'shape-mismatch',
      tensor: expect.stringMatching('mlp'),
      expected: expect.stringMatching('base'),
      received: expect.stringMatching('post'),
    },
    count: 6,
  },
  'a tensor that only post has': {
    make: async ({ at }) => [
      'delta',
      await writeModel(at('base'), { edit: (tensors) => tensors.delete('model.norm.weight') }),
      await writeModel(at('post')),
    ],
    problem: {
      code: 'missing-tensor',
      tensor: 'model.norm.weight',
      message: 'post has a tensor that base lacks',
    },
  },
  'ids that mean two tokens': {
    make: (temp) => trio(temp, { base: 'abcdef', post: 'abcdef', cpt: 'abXYef' }),
    problem: { code: 'vocabulary-collision', message: expect.any(String), next: expect.any(String) },
    count: 2,
  },
  'vocabularies that nobody knows': {
    make: async ({ at }) =>
      graft(
        await writeModel(at('cpt'), { config: { vocab_size: 12 } }),
        await writeModel(at('base')),
        await writeModel(at('post'), { seed: 1 }),
      ),
    problem: { code: 'vocabulary-unknown', next: expect.any(String) },
  },
  'a delta that is none': {
    make: async () => ['graft', CPT, '--delta', BASE],
    problem: { code: 'not-a-delta', next: expect.stringMatching('polygraft delta') },
  },
  'experts and layers that are not there': {
    make: async () => [...graft(CPT, BASE, INSTRUCT), '--expert-lambda', '1=0,3=1,9=1'],
    problem: { code: 'unknown-expert', expected: '0 to 2' },
    count: 2,
  },
  'cpt of another family': {
    make: async ({ at }) =>
      graft(await writeModel(at('cpt'), { config: { model_type: 'qwen3', head_dim: 4 } }), BASE, INSTRUCT),
    problem: { code: 'family-mismatch', received: 'qwen3', next: expect.any(String) },
  },
  'a memory budget that holds nothing': {
    make: async () => [...upcycle(BASE), '--memory', '1MB'],
    problem: { code: 'memory-budget', received: '0 MiB', next: expect.any(String) },
  },
}

describe.concurrent('bad input', () => {
  it.each(Object.entries(ROWS))('%s', async (_, { make, problem, count = 1 }) => {
    const temp = await createTemp()
    const args = [...(await make(temp)), '-o', temp.at('out')]
    const before = await listing(temp.dir)
    const { code, json, stderr } = await runJson(args)
    expect(code).toBe(1)
    const { error } = json
    const found = error.problems.filter((each: Problem) => each.code === problem.code)
    expect(found).toEqual(expect.arrayContaining([expect.objectContaining(problem)]))
    expect(found).toHaveLength(count)
    expect(error.code).toBe(error.problems[0].code)
    // People are told the same.
    for (const { message, expected, received, next } of error.problems)
      for (const part of [message, expected, received, next]) if (part) expect(stderr).toContain(part)
    expect(stderr).toMatch(/^error /)
    expect(await listing(temp.dir)).toEqual(before)
    // A dry run says the same, and ends the same.
    const dry = await runJson([...args, '--dry-run'])
    expect(dry.code).toBe(1)
    expect(dry.json.problems ?? dry.json.error.problems).toEqual(error.problems)
    expect(await listing(temp.dir)).toEqual(before)
  })
})

describe.concurrent('problems of several kinds', () => {
  it('are listed together: config, tensors, options and the place of the output', async () => {
    const { at, dir } = await createTemp()
    const base = await writeModel(at('base'))
    const post = await writeModel(at('post'), {
      config: { rope_theta: 7 },
      edit: (tensors) => tensors.delete('model.norm.weight'),
    })
    await writeModel(at('out'))
    const before = await listing(dir)
    const args = [...graft(base, base, post), '-o', at('out'), '--layer-lambda', '5=1']
    for (const more of [[], ['--dry-run']]) {
      const { code, json, stderr } = await runJson([...args, ...more])
      expect(code).toBe(1)
      const problems: Problem[] = json.problems ?? json.error.problems
      expect(new Set(problems.map(({ code }) => code))).toEqual(
        new Set(['config-mismatch', 'missing-tensor', 'unknown-layer', 'exists']),
      )
      if (more.length === 0) expect(stderr).toContain('[exists]')
    }
    const human = await run([...args, '--dry-run'])
    expect(human.stdout).toMatch(/^would write .*\n\d+ problems found:\n/)
    expect(human.stdout).toContain('[unknown-layer]')
    expect(await listing(dir)).toEqual(before)
  })

  it('and of several inputs, each by its place', async () => {
    const { at } = await createTemp()
    const post = await copyOf(INSTRUCT, at('post'))
    await truncate(join(post, 'model.safetensors'), 1000)
    const { code, json } = await runJson([...graft(at('cpt'), at('base'), post), '-o', at('out')])
    expect(code).toBe(1)
    expect(json.error.problems.map(({ code, file }: Problem) => [code, file])).toEqual([
      ['missing-file', at('cpt')],
      ['missing-file', at('base')],
      ['truncated', join(post, 'model.safetensors')],
    ])
  })

  it('--force goes on where only the guard refuses, and nowhere else', async () => {
    const { at } = await createTemp()
    const base = await writeModel(at('base'))
    const post = await writeModel(at('post'), { seed: 1, config: { rope_theta: 7 } })
    expect((await runJson(['delta', base, post, '-o', at('out')])).json.error.code).toBe('config-mismatch')
    await succeed(['delta', base, post, '-o', at('out'), '--force'])
    const other = await writeModel(at('other'), { config: { intermediate_size: 12 } })
    const { json } = await runJson(['delta', base, other, '-o', at('out'), '--force'])
    expect(json.error.code).toBe('shape-mismatch')
  })
})

describe.concurrent('places for an output', () => {
  it.each<[string, string, (temp: Temp) => Promise<{ out: string; more?: string[] }>]>([
    ['inside of an input', 'overlapping-paths', async ({ at }) => ({ out: at('base/out') })],
    [
      'inside of an input, by a link',
      'overlapping-paths',
      async ({ at }) => {
        await symlink(at('base'), at('link'))
        return { out: at('link/out') }
      },
    ],
    ['around an input', 'overlapping-paths', async ({ dir }) => ({ out: dir, more: ['--force'] })],
    ['an input itself', 'overlapping-paths', async ({ at }) => ({ out: at('base'), more: ['--force'] })],
    [
      'that exists',
      'exists',
      async ({ at }) => {
        await writeModel(at('out'))
        return { out: at('out') }
      },
    ],
    [
      'that is a file',
      'exists',
      async ({ at }) => {
        await writeFile(at('out'), 'x')
        return { out: at('out'), more: ['--force'] }
      },
    ],
    [
      'that holds something else',
      'unsafe-output',
      async ({ at }) => {
        await mkdir(at('out'))
        await writeFile(at('out/thesis.tex'), 'x')
        return { out: at('out'), more: ['--force'] }
      },
    ],
    [
      'below a file',
      'missing-file',
      async ({ at }) => {
        await writeFile(at('file'), 'x')
        return { out: at('file/out') }
      },
    ],
  ])('%s', async (_, code, make) => {
    const temp = await createTemp()
    const base = await copyOf(BASE, temp.at('base'))
    const { out, more = [] } = await make(temp)
    const before = await listing(temp.dir)
    for (const dry of [[], ['--dry-run']]) {
      const ended = await runJson([...upcycle(base), '-o', out, ...more, ...dry])
      expect(ended.code).toBe(1)
      problemOf(ended.json.problems ?? ended.json.error.problems, code)
      expect(await listing(temp.dir)).toEqual(before)
    }
  })
})

describe('when the disk is full', () => {
  it('as the plan foresees: nothing begins', async (context) => {
    const { at } = await createTemp()
    await mkdir(at('small'))
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', at('small')], { stdio: 'ignore' })
    } catch {
      context.skip('this user may not mount a small tmpfs')
    }
    try {
      const { code, json } = await runJson([...upcycle(BASE), '-o', at('small/out')])
      expect(code).toBe(1)
      expect(problemOf(json.error.problems, 'disk-full')).toMatchObject({
        expected: '1.03 MB',
        received: expect.stringMatching('free'),
        next: expect.any(String),
      })
      expect(await readdir(at('small'))).toEqual([])
    } finally {
      execFileSync('umount', [at('small')])
    }
  })

  it('in the middle: nothing is left', async () => {
    const { at, dir } = await createTemp()
    const limited = `ulimit -f 200; exec "${process.execPath}" "${BIN}" upcycle "${BASE}" --experts 3 -o "${at('out')}" --json`
    const { code, stdout } = await startAny('bash', ['-c', limited]).ended
    expect(code).toBe(1)
    expect(problemOf(JSON.parse(stdout).error.problems, 'disk-full')).toMatchObject({
      next: expect.any(String),
    })
    expect(await readdir(dir)).toEqual([])
  })
})

describe('when it is stopped', () => {
  let temp: Temp
  let args: string[] = []
  beforeAll(async () => {
    temp = await createTemp()
    // 1.6 GB to write, of which little is: the inputs are holes.
    const config = { vocab_size: 1000, hidden_size: 4096, intermediate_size: 16384, num_hidden_layers: 2 }
    for (const [seed, role] of ['base', 'post', 'cpt'].entries())
      await writeSparseModel(temp.at(role), { config, seed: seed + 1 })
    args = [...graft(temp.at('cpt'), temp.at('base'), temp.at('post')), '-o', temp.at('out')]
  })

  /** What is left is what the message says: nothing, or what the next run goes on with. */
  async function expectTidy(text: string): Promise<void> {
    expect(text).toMatch(/error Cancelled; (nothing was written|kept .* begun)/)
    const kept = text.includes('Cancelled; kept') ? ['.out.polygraft'] : []
    expect((await readdir(temp.dir)).sort()).toEqual([...kept, 'base', 'cpt', 'post'])
    await rm(temp.at('.out.polygraft'), { recursive: true, force: true })
  }

  async function begun(): Promise<void> {
    while ((await readdir(temp.dir)).length < 4) await new Promise((resolve) => setTimeout(resolve, 5))
  }

  it.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('by %s', async (signal) => {
    const child = start([...args, '--json'])
    await begun()
    // npm and npx send it a second time.
    child.kill(signal)
    child.kill(signal)
    const { code, stdout, stderr } = await child.ended
    expect(code).toBe(1)
    expect(JSON.parse(stdout).error).toMatchObject({ code: 'cancelled' })
    await expectTidy(stderr)
  })

  it('by Ctrl-C on a terminal, which shows how far it is', async (context) => {
    try {
      execFileSync('script', ['--version'])
    } catch {
      context.skip('there is no `script` to make a terminal with')
    }
    // exec: a shell that waits would be stopped by the Ctrl-C too, and some then end with 130 whatever the program said.
    const command = `exec ${[process.execPath, BIN, ...args].map((word) => `'${word}'`).join(' ')}`
    const child = startAny('script', ['-qefc', command, '/dev/null'], { env: { TERM: 'xterm' } })
    await new Promise<void>((resolve) => {
      child.stdout.on('data', (text: string) => / % /.test(text) && resolve())
    })
    child.stdin.write('\x03')
    const { code, stdout } = await child.ended
    expect(code).toBe(1)
    expect(stdout).toMatch(/graft [━─]+ \d+ % /)
    await expectTidy(stdout)
  })
})

it('a reader that leaves is no failure', async () => {
  const command = `set -o pipefail; "${process.execPath}" "${BIN}" inspect "${CPT}" --tensors --json | head -c 10`
  const { code, stdout, stderr } = await startAny('bash', ['-c', command]).ended
  expect([code, stdout, stderr]).toEqual([0, '{"checkpoi', ''])
})
