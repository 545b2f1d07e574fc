// A write that is planned once, run in tasks and finished: always the bytes of the direct run, or a clear error.

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { cp, mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, beforeEach, describe, expect, it } from 'vitest'
import {
  BASE,
  BIN,
  CPT,
  createTemp,
  editJson,
  flipBit,
  INSTRUCT,
  problemOf,
  run,
  runJson,
  start,
  startAny,
  succeed,
  writeModel,
} from './support.js'

const SMALL = ['--max-shard-size', '200KB']

let shared: Awaited<ReturnType<typeof createTemp>>
let temp: Awaited<ReturnType<typeof createTemp>>
/** What the direct run writes: digests by file. */
let direct: ReadonlyMap<string, string>
let shards: readonly string[]

beforeAll(async () => {
  shared = await createTemp()
  await succeed(graft(shared.at('direct')))
  direct = await digestsOf(shared.at('direct'))
  shards = [...direct.keys()].filter((file) => file.endsWith('.safetensors'))
  expect(shards.length).toBeGreaterThan(5)
})
beforeEach(async () => {
  temp = await createTemp()
})

function graft(out: string, cpt = CPT): string[] {
  return ['graft', cpt, '-o', out, '--base', BASE, '--post', INSTRUCT, ...SMALL]
}

/** Saves the plan of the graft into `out` as `plan.json` beside it. */
async function plan(cpt = CPT): Promise<string> {
  const path = temp.at('plan.json')
  await succeed([...graft(temp.at('out'), cpt), '--plan', path])
  return path
}

const task = (path: string, text: string) => succeed(['run', path, '--task', text])

async function digestsOf(dir: string): Promise<Map<string, string>> {
  const digests = (await readdir(dir)).sort().map(
    async (file) =>
      [
        file,
        createHash('sha256')
          .update(await readFile(join(dir, file)))
          .digest('hex'),
      ] as const,
  )
  return new Map(await Promise.all(digests))
}

/** The output is the direct run's, and beside it nothing but the plan and what else is named. */
async function expectDirect(...others: string[]): Promise<void> {
  expect(await digestsOf(temp.at('out'))).toEqual(direct)
  expect((await readdir(temp.dir)).sort()).toEqual(['out', 'plan.json', ...others].sort())
}

const hidden = (name = '') => join(temp.dir, '.out.polygraft-plan', name)

describe('tasks', () => {
  it('write the bytes of a direct run, in any order', async () => {
    const path = await plan()
    expect(await readdir(temp.dir)).toEqual(['plan.json'])
    for (const i of [3, 1, 4, 2]) await task(path, `${i}/4`)
    await succeed(['finish', path])
    await expectDirect()
  })

  it('write their shards and nothing else', async () => {
    const path = await plan()
    const { shards: written } = await task(path, '2/3')
    const expected = shards.filter((_, shard) => shard % 3 === 1)
    expect(written.map(({ file }: { file: string }) => file)).toEqual(expected)
    expect((await readdir(hidden('output'))).sort()).toEqual(expected)
    expect((await readdir(hidden('notes'))).sort()).toEqual(expected)
    expect((await readdir(hidden())).sort()).toEqual(['key', 'notes', 'output'])
    expect(existsSync(temp.at('out'))).toBe(false)
  })

  it('may run twice, under divisions that differ', async () => {
    const path = await plan()
    expect(await task(path, '1/2')).toMatchObject({ earlier: 0 })
    const before = await stat(join(hidden('output'), shards[0]!))
    expect(await task(path, '1/2')).toMatchObject({ written: 0, earlier: Math.ceil(shards.length / 2) })
    expect((await stat(join(hidden('output'), shards[0]!))).ino).toBe(before.ino)
    const rest = await succeed(['run', path])
    expect(rest).toMatchObject({
      task: 1,
      tasks: 1,
      written: Math.floor(shards.length / 2),
      earlier: Math.ceil(shards.length / 2),
    })
    await succeed(['finish', path])
    await expectDirect()
  })

  it('may run at once, the same ones too', async () => {
    const path = await plan()
    const texts = ['1/2', '2/2', '1/2', '1/1']
    const ended = await Promise.all(texts.map((text) => run(['run', path, '--task', text, '--threads', '1'])))
    expect(ended.map(({ code, stderr }) => [code, stderr])).toEqual(texts.map(() => [0, '']))
    await succeed(['finish', path])
    await expectDirect()
  })

  it('may outnumber the shards', async () => {
    const path = await plan()
    const count = shards.length + 2
    const last = await task(path, `${count}/${count}`)
    expect(last).toMatchObject({ written: 0, earlier: 0, shards: [] })
    for (let i = 1; i < count; i++)
      expect((await task(path, `${i}/${count}`)).written).toBe(i <= shards.length ? 1 : 0)
    await succeed(['finish', path])
    await expectDirect()
  })

  it('take a number from 1 to n', async () => {
    for (const text of ['0/2', '3/2', '1/0', '1', 'a/b', '1/2/3', '-1/2', '1.5/2'])
      expect((await run(['run', 'plan.json', '--task', text])).code).toBe(2)
  })

  it('run from another folder than the plan was made in, and keep the names of the inputs', async () => {
    await cp(CPT, temp.at('cpt'), { recursive: true })
    const args = ['graft', 'cpt', '--base', BASE, '--post', INSTRUCT, ...SMALL]
    await succeed([...args, '-o', 'expected'], { cwd: temp.dir })
    await succeed([...args, '-o', 'out', '--plan', 'plan.json'], { cwd: temp.dir })
    await succeed(['run', temp.at('plan.json')], { cwd: shared.dir })
    await succeed(['finish', temp.at('plan.json')], { cwd: shared.dir })
    expect(await digestsOf(temp.at('out'))).toEqual(await digestsOf(temp.at('expected')))
  })

  it('take any number of threads', async () => {
    const path = await plan()
    await succeed(['run', path, '--task', '1/2', '--threads', '0'])
    await succeed(['run', path, '--task', '2/2', '--threads', '3'])
    await succeed(['finish', path])
    await expectDirect()
  })
})

describe('every writing command', () => {
  const cases: readonly (readonly [string, readonly string[]])[] = [
    ['delta', ['delta', BASE, INSTRUCT]],
    ['upcycle', ['upcycle', BASE, '--experts', '4', '--router', 'orthogonal', '--seed', '7']],
    ['upcycle with noise', ['upcycle', BASE, '--experts', '2', '--expert-noise', '0.01']],
    [
      'graft with factors',
      ['graft', CPT, '--base', BASE, '--post', INSTRUCT, '--expert-lambda', '0=1,1=0.3', '--fold-router'],
    ],
  ]
  it.each(cases)('%s', async (_, args) => {
    const path = temp.at('plan.json')
    await succeed([...args, ...SMALL, '-o', temp.at('expected')])
    await succeed([...args, ...SMALL, '-o', temp.at('out'), '--plan', path])
    for (const i of [2, 1]) await task(path, `${i}/2`)
    await succeed(['finish', path])
    expect(await digestsOf(temp.at('out'))).toEqual(await digestsOf(temp.at('expected')))
  })

  it('with one shard, which needs no index', async () => {
    const path = temp.at('plan.json')
    const args = ['delta', BASE, INSTRUCT]
    await succeed([...args, '-o', temp.at('expected')])
    await succeed([...args, '-o', temp.at('out'), '--plan', path])
    await task(path, '1/1')
    await succeed(['finish', path])
    expect(await digestsOf(temp.at('out'))).toEqual(await digestsOf(temp.at('expected')))
    expect(await readdir(temp.at('out'))).toContain('model.safetensors')
  })
})

describe('--json', () => {
  it('says what was planned, run and finished', async () => {
    const path = temp.at('plan.json')
    const out = temp.at('out')
    const planned = await succeed([...graft(out), '--plan', path])
    expect(planned).toEqual({
      plan: path,
      out,
      shardCount: shards.length,
      key: expect.stringMatching(/^[0-9a-f]{64}$/),
      bytesWritten: expect.any(Number),
    })
    const ran = await task(path, '1/1')
    expect(ran).toMatchObject({ plan: path, task: 1, tasks: 1, written: shards.length, earlier: 0 })
    expect(
      new Map(ran.shards.map(({ file, sha256 }: { file: string; sha256: string }) => [file, sha256])),
    ).toEqual(new Map(shards.map((file) => [file, direct.get(file)])))
    const { shards: written, ...finished } = await succeed(['finish', path])
    expect(written).toEqual(ran.shards)
    expect(finished).toMatchObject({ out, shardCount: shards.length, bytesWritten: planned.bytesWritten })
  })

  it('is not needed', async () => {
    const path = temp.at('plan.json')
    const planned = await run([...graft(temp.at('out')), '--plan', path])
    expect(planned.stdout).toContain(`saved ${path}: ${shards.length} shard`)
    expect((await run(['run', path, '--task', '1/1'])).stdout).toMatch(/^task 1\/1: \d+ shard/)
    expect((await run(['run', path, '--task', '1/1'])).stdout).toMatch(/, 6 of them written before\n$/)
    expect((await run(['finish', path])).stdout).toContain(`wrote ${temp.at('out')}: `)
  })
})

describe('finish', () => {
  it('lists what is missing', async () => {
    const path = await plan()
    await task(path, '2/3')
    const { code, json } = await runJson(['finish', path])
    expect(code).toBe(1)
    const missing = shards.filter((_, shard) => shard % 3 !== 1)
    expect(json.error.problems).toEqual(
      missing.map((file) => ({
        code: 'unfinished',
        message: `Shard ${shards.indexOf(file) + 1} of ${shards.length} is not written yet`,
        file,
        next: expect.stringContaining(`polygraft run ${path}`),
      })),
    )
    expect(existsSync(temp.at('out'))).toBe(false)
    await task(path, '1/1')
    await succeed(['finish', path])
    await expectDirect()
  })

  it('leaves nothing behind where no task has run', async () => {
    const path = await plan()
    const { json } = await runJson(['finish', path])
    expect(problemOf(json.error.problems, 'plan-conflict').message).toContain('No task of this plan has run')
    expect(await readdir(temp.dir)).toEqual(['plan.json'])
  })

  it('finds damaged shards, all of them; what it advises helps', async () => {
    const path = await plan()
    await task(path, '1/1')
    const [bent, other] = [join(hidden('output'), shards[1]!), join(hidden('output'), shards[4]!)]
    await flipBit(bent)
    await flipBit(other)
    const { code, json } = await runJson(['finish', path])
    expect(code).toBe(1)
    expect(json.error.problems).toMatchObject([
      { code: 'damaged-shard', file: shards[1], expected: expect.stringContaining(direct.get(shards[1]!)!) },
      { code: 'damaged-shard', file: shards[4] },
    ])
    expect(json.error.problems[0].next).toContain(hidden('output'))
    expect(existsSync(temp.at('out'))).toBe(false)
    await rm(bent)
    await rm(other)
    expect(await task(path, '1/1')).toMatchObject({ written: 2 })
    await succeed(['finish', path])
    await expectDirect()
  })

  it('takes a shard that was cut for one that is missing', async () => {
    const path = await plan()
    await task(path, '1/1')
    const cut = join(hidden('output'), shards[2]!)
    await writeFile(cut, (await readFile(cut)).subarray(0, -1))
    const { json } = await runJson(['finish', path])
    expect(json.error.problems).toMatchObject([{ code: 'unfinished', file: shards[2] }])
    expect(await task(path, '1/1')).toMatchObject({ written: 1 })
    await succeed(['finish', path])
    await expectDirect()
  })

  it('is refused the second time, and so is a task that comes late', async () => {
    const path = await plan()
    await task(path, '1/1')
    await succeed(['finish', path])
    for (const args of [
      ['finish', path],
      ['run', path],
    ]) {
      const { code, json } = await runJson(args)
      expect(code).toBe(1)
      expect(problemOf(json.error.problems, 'exists').next).toContain('nothing is left to be done')
    }
    await expectDirect()
  })

  it('runs once when started twice', async () => {
    const path = await plan()
    await task(path, '1/1')
    const ended = await Promise.all([1, 2, 3].map(() => run(['finish', path])))
    expect(ended.filter(({ code }) => code === 0).length).toBe(1)
    await expectDirect()
  })

  it('replaces an output only with --force, and only then', async () => {
    const path = temp.at('plan.json')
    await writeModel(temp.at('out'))
    const old = await digestsOf(temp.at('out'))
    expect(
      problemOf((await runJson([...graft(temp.at('out')), '--plan', path])).json.error.problems, 'exists'),
    ).toBeDefined()
    await succeed([...graft(temp.at('out')), '--force', '--plan', path])
    await task(path, '1/1')
    expect(await digestsOf(temp.at('out'))).toEqual(old)
    await succeed(['finish', path])
    const files = await readdir(temp.at('out'))
    expect(files).toEqual([...direct.keys()])
    expect((await readdir(temp.dir)).sort()).toEqual(['out', 'plan.json'])
  })

  it('keeps the shards when the disk is full', async (context) => {
    const disk = temp.at('disk')
    await mkdir(disk)
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', disk], { stdio: 'ignore' })
    } catch {
      return context.skip('mounting a small disk takes more rights than these')
    }
    try {
      const path = temp.at('plan.json')
      await succeed([...graft(join(disk, 'out')), '--plan', path])
      await task(path, '1/1')
      await fillDisk(join(disk, 'filler'))
      const { code, json } = await runJson(['finish', path])
      expect(code).toBe(1)
      expect(json.error.code).toBe('disk-full')
      expect((await readdir(join(disk, '.out.polygraft-plan/notes'))).sort()).toEqual(shards)
      await rm(join(disk, 'filler'))
      await succeed(['finish', path])
      expect(await digestsOf(join(disk, 'out'))).toEqual(direct)
      expect(await readdir(disk)).toEqual(['out'])
    } finally {
      execFileSync('umount', ['-l', disk])
    }
  })
})

/** Takes all space that is left. */
async function fillDisk(path: string): Promise<void> {
  await startAny('dd', ['if=/dev/zero', `of=${path}`, 'bs=4096']).ended
}

describe('inputs that changed', () => {
  const commands = (path: string) => [
    ['run', path],
    ['finish', path],
  ]

  async function expectRefused(path: string, code: string, file: string): Promise<void> {
    for (const args of commands(path)) {
      const ended = await runJson(args)
      expect(ended.code).toBe(1)
      const problem = problemOf(ended.json.error.problems, code)
      expect(problem.file).toContain(file)
      expect(problem.next).toBe('Restore the input, or make the plan again.')
    }
    expect(existsSync(temp.at('out'))).toBe(false)
  }

  it('in content and time', async () => {
    const cpt = temp.at('cpt')
    await cp(CPT, cpt, { recursive: true })
    const path = await plan(cpt)
    await flipBit(join(cpt, 'model-00001-of-00002.safetensors'))
    await expectRefused(path, 'changed', 'model-00001-of-00002.safetensors')
  })

  it('in time alone, all listed', async () => {
    const cpt = temp.at('cpt')
    await cp(CPT, cpt, { recursive: true })
    const path = await plan(cpt)
    for (const file of ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'])
      await utimes(join(cpt, file), 1, 1)
    const { json } = await runJson(['run', path])
    expect(json.error.problems.map(({ code, file }: { code: string; file: string }) => [code, file])).toEqual(
      [
        ['changed', join(cpt, 'model-00001-of-00002.safetensors')],
        ['changed', join(cpt, 'model-00002-of-00002.safetensors')],
      ],
    )
    await expectRefused(path, 'changed', 'model-00001-of-00002.safetensors')
  })

  it('in content alone', async () => {
    const cpt = temp.at('cpt')
    await cp(CPT, cpt, { recursive: true })
    const file = join(cpt, 'model-00001-of-00002.safetensors')
    const path = await plan(cpt)
    const { atimeMs, mtimeMs } = await stat(file)
    const bytes = await readFile(file)
    // Wherever the sample looks.
    for (let at = bytes.length >> 1; at < bytes.length; at++) bytes[at]! ^= 1
    await writeFile(file, bytes)
    await utimes(file, atimeMs / 1000, mtimeMs / 1000)
    await expectRefused(path, 'plan-inputs', cpt)
  })

  it('in place', async () => {
    const cpt = temp.at('cpt')
    await cp(CPT, cpt, { recursive: true, preserveTimestamps: true })
    const path = await plan(cpt)
    await task(path, '1/2')
    await rename(cpt, temp.at('moved'))
    await expectRefused(path, 'changed', join(cpt, 'model-00001-of-00002.safetensors'))
    await rename(temp.at('moved'), cpt)
    await task(path, '2/2')
    await succeed(['finish', path])
    expect(await digestsOf(temp.at('out'))).not.toBe(direct)
    for (const file of shards) expect((await digestsOf(temp.at('out'))).get(file)).toBe(direct.get(file))
  })

  it('between two plans for one output', async () => {
    const path = await plan()
    await task(path, '1/2')
    const other = temp.at('other.json')
    await succeed([...graft(temp.at('out')), '--lambda', '0.5', '--plan', other])
    for (const args of commands(other)) {
      const problem = problemOf((await runJson(args)).json.error.problems, 'plan-conflict')
      expect(problem).toMatchObject({
        file: hidden(),
        next: expect.stringContaining('remove the folder'),
      })
    }
    await task(path, '2/2')
    await succeed(['finish', path])
    await expectDirect('other.json')
  })
})

describe('a plan file', () => {
  it('of another version is refused', async () => {
    const path = await plan()
    await editJson(path, (value) => {
      ;(value.polygraft as Record<string, unknown>).version = '0.0.0-other'
    })
    for (const args of [
      ['run', path],
      ['finish', path],
    ])
      expect(problemOf((await runJson(args)).json.error.problems, 'plan-version')).toMatchObject({
        file: path,
        received: '0.0.0-other',
        next: 'Make the plan again with this version.',
      })
  })

  const edits: readonly (readonly [string, (value: Record<string, unknown>) => void])[] = [
    ['the output', (value) => Object.assign(value, { out: `${value.out}-elsewhere` })],
    [
      'the size of shards',
      (value) => Object.assign(value, { limits: { maxShardBytes: 1e6, memoryBytes: 1e8 } }),
    ],
    ['a tensor left out', (value) => void (value.tensors as unknown[]).pop()],
    ['no states', (value) => Object.assign(value, { states: [] })],
    ['no sources', (value) => void delete value.sources],
  ]
  it.each(edits)('edited by hand is refused: %s', async (_, edit) => {
    const path = await plan()
    await editJson(path, edit)
    for (const args of [
      ['run', path],
      ['finish', path],
    ])
      expect(problemOf((await runJson(args)).json.error.problems, 'bad-plan').message).toBe(
        'The plan is not as it was saved',
      )
    expect(await readdir(temp.dir)).toEqual(['plan.json'])
  })

  it.each([
    '',
    '{',
    'null',
    '[]',
    '1',
    '"x"',
    '{}',
    '{"polygraft":{"plan":2}}',
    '{"polygraft":null}',
    '\u0000',
  ])('that is none is refused: %j', async (text) => {
    await writeFile(temp.at('plan.json'), text)
    expect((await runJson(['run', temp.at('plan.json')])).json.error.code).toBe('bad-plan')
  })

  it('that was cut is refused', async () => {
    const path = await plan()
    await writeFile(path, (await readFile(path)).subarray(0, -100))
    expect((await runJson(['run', path])).json.error.code).toBe('bad-plan')
  })

  it('that is not there is refused, and so is a place where none can be saved', async () => {
    const path = temp.at('none/plan.json')
    for (const command of ['run', 'finish'])
      expect((await runJson([command, path])).json.error.problems).toMatchObject([
        { code: 'missing-file', file: path },
      ])
    const { json } = await runJson([...graft(temp.at('out')), '--plan', path])
    expect(json.error.problems).toMatchObject([
      { code: 'io', message: 'The plan cannot be saved', file: path },
    ])
  })

  it('is not saved when the command would be refused, nor by --dry-run', async () => {
    const path = temp.at('plan.json')
    await writeFile(temp.at('out'), '')
    expect((await run([...graft(temp.at('out')), '--plan', path])).code).toBe(1)
    expect((await run([...graft(temp.at('elsewhere')), '--plan', path, '--dry-run'])).code).toBe(0)
    expect(await readdir(temp.dir)).toEqual(['out'])
  })
})

describe('a kill', () => {
  const KILLS = 12

  it(`of tasks and finish at ${KILLS} random points changes nothing`, async () => {
    const args = await largeGraft()
    await succeed([...args, '-o', temp.at('expected')])
    const expected = await digestsOf(temp.at('expected'))
    await succeed([...args, '-o', temp.at('out'), '--plan', temp.at('plan.json')])
    const path = temp.at('plan.json')
    const started = performance.now()
    await succeed(['run', path, '--task', '1/3'])
    const usualMs = performance.now() - started
    for (let kill = 0; kill < KILLS; kill++) {
      const command = kill % 4 === 3 ? ['finish', path] : ['run', path, '--task', `${(kill % 4) + 1}/3`]
      await killed(command, (0.4 + 0.7 * Math.random()) * usualMs)
      // Otherwise all is written before half of the kills, and they show nothing.
      if (kill % 8 === 7 && existsSync(hidden('notes'))) {
        const notes = await readdir(hidden('notes'))
        for (const name of notes.slice(0, notes.length / 2)) await rm(hidden(`notes/${name}`))
      }
      if (existsSync(temp.at('out'))) break
    }
    if (!existsSync(temp.at('out'))) {
      for (const i of [1, 2, 3]) await task(path, `${i}/3`)
      await succeed(['finish', path])
    }
    expect(await digestsOf(temp.at('out'))).toEqual(expected)
    const left = (await readdir(temp.dir)).filter((name) => name.startsWith('.'))
    expect(left).toEqual([])
  }, 120_000)

  it('by Ctrl-C keeps the shards that a task has finished, and nothing half written', async () => {
    const args = await largeGraft()
    await succeed([...args, '-o', temp.at('out'), '--plan', temp.at('plan.json')])
    const child = start(['run', temp.at('plan.json'), '--threads', '1'])
    while (child.exitCode === null && (await names(hidden('notes'))).length === 0)
      await new Promise((r) => setTimeout(r, 5))
    child.kill('SIGINT')
    const { code, stderr } = await child.ended
    expect([code, stderr]).toEqual([1, expect.stringContaining('Cancelled')])
    expect((await names(hidden())).sort()).toEqual(['key', 'notes', 'output'])
    expect(await names(hidden('output'))).toEqual(await names(hidden('notes')))
  })

  const names = (dir: string) => readdir(dir).catch((): string[] => [])

  async function killed(args: readonly string[], afterMs: number): Promise<void> {
    const child = startAny(process.execPath, [BIN, ...args])
    const timer = setTimeout(() => child.kill('SIGKILL'), afterMs)
    await child.ended
    clearTimeout(timer)
  }

  /** A graft of about 25 MB in shards of 2 MB. */
  async function largeGraft(): Promise<string[]> {
    const config = { hidden_size: 256, intermediate_size: 1024, num_hidden_layers: 12, vocab_size: 256 }
    const [base, post, cpt] = await Promise.all(
      ['base', 'post', 'cpt'].map((name, seed) => writeModel(temp.at(name), { config, seed })),
    )
    return ['graft', cpt!, '--base', base!, '--post', post!, '--max-shard-size', '2MB']
  }
})

describe('an input that changes while a task reads it', () => {
  it('spoils no shard: none is handed in', async () => {
    const cpt = temp.at('cpt')
    await writeModel(cpt, { config: { hidden_size: 256, intermediate_size: 1024, num_hidden_layers: 24 } })
    const path = temp.at('plan.json')
    await succeed([
      'upcycle',
      cpt,
      '--experts',
      '4',
      '-o',
      temp.at('out'),
      '--max-shard-size',
      '200MB',
      '--plan',
      path,
    ])
    const child = start(['run', path, '--json'])
    // The task's own folder is there once the inputs were checked.
    const isReading = async () =>
      (await readdir(hidden()).catch((): string[] => [])).some((name) => name.includes('.task-'))
    while (child.exitCode === null && !(await isReading())) await new Promise((r) => setTimeout(r, 2))
    await utimes(join(cpt, 'model.safetensors'), 1, 1)
    const { code, stdout } = await child.ended
    expect(code).toBe(1)
    expect(JSON.parse(stdout).error.code).toBe('changed')
    expect(await readdir(hidden('output'))).toEqual([])
    expect((await readdir(hidden())).sort()).toEqual(['key', 'notes', 'output'])
  })
})
