import { execFileSync } from 'node:child_process'
import { existsSync, watch } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm, truncate, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import {
  copyOf,
  createTemp,
  type Ended,
  flipBit,
  run,
  runJson,
  start,
  succeed,
  writeModel,
} from './support.js'

const CONFIG = { vocab_size: 512, hidden_size: 128, intermediate_size: 512, num_hidden_layers: 8 }
const INPUTS = ['base', 'instruct', 'cpt']

let temp: Awaited<ReturnType<typeof createTemp>>
let expected = new Map<string, string>()
const at = (name: string) => temp.at(name)

beforeAll(async () => {
  temp = await createTemp()
  for (const [seed, name] of INPUTS.entries())
    await writeModel(at(name), { seed, config: CONFIG, files: { 'tokenizer_config.json': '{}' } })
  await succeed(graft('expected'))
  expected = await contentOf('expected')
  expect([...expected.keys()].filter((file) => file.endsWith('.safetensors')).length).toBeGreaterThan(4)
})
afterEach(async () => {
  for (const name of await readdir(temp.dir))
    if (![...INPUTS, 'expected'].includes(name)) await rm(at(name), { recursive: true, force: true })
})

function graft(
  out: string,
  { cpt = 'cpt', shard = '500KB', threads = '2', more = [] as string[] } = {},
): string[] {
  const inputs = [at(cpt), '--base', at('base'), '--post', at('instruct')]
  return ['graft', ...inputs, '-o', at(out), '--max-shard-size', shard, '--threads', threads, ...more]
}

/** TIES, which measures before it writes; `instruct` is read in both passes. */
async function ties(out: string, instruct: string): Promise<string[]> {
  const model = `{ model: ${at(instruct)}, parameters: { weight: 1, density: 0.3 } }`
  await writeFile(at('ties.yml'), `merge_method: ties\nbase_model: ${at('base')}\nmodels: [${model}]\n`)
  return ['merge', at('ties.yml'), '-o', at(out), '--max-shard-size', '500KB', '--threads', '2']
}

/** A folder's files, but for where the inputs lay. */
async function contentOf(out: string): Promise<Map<string, string>> {
  const names = (await readdir(at(out))).sort()
  const texts = names.map(
    async (name) => [name, (await readFile(at(join(out, name)))).toString('latin1')] as const,
  )
  return new Map(await Promise.all(texts))
}

const left = async () =>
  (await readdir(temp.dir)).filter((name) => ![...INPUTS, 'expected'].includes(name)).sort()
const notes = (out: string) => readdir(at(`.${out}.polygraft/notes`)).catch(() => [])

/** A module that Node loads before the program, in each of its threads: how the system fails is put in there. */
async function failing(source: string): Promise<{ env: Record<string, string> }> {
  const path = at('fault.mjs')
  const head = `import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { isMainThread } from 'node:worker_threads'
const fault = (code) => Object.assign(new Error(code + ': injected'), { code })
`
  await writeFile(path, `${head}${source}\nsyncBuiltinESMExports()\n`)
  return { env: { NODE_OPTIONS: `--import=${pathToFileURL(path)}` } }
}

/** Every write of a thread takes so long, so that a run can be met while it works. */
const slowly = (ms: number) =>
  failing(`const write = fs.writeSync
fs.writeSync = (...args) => (Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ${ms}), write(...args))`)

/** Starts a run and waits until it has noted its first shard. */
async function startAndNote(out: string, args = graft(out), slowMs = 5) {
  const child = start([...args, '--json'], await slowly(slowMs))
  while ((await notes(out)).filter((name) => !name.startsWith('.')).length === 0) {
    if (child.exitCode !== null) throw new Error(`ended too soon: ${(await child.ended).stderr}`)
    await new Promise((done) => setTimeout(done, 5))
  }
  return child
}

const codeOf = ({ stdout }: Ended): string => JSON.parse(stdout).error.code

describe('a run that is told to stop', () => {
  it.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)(
    'keeps finished shards, and goes on: %s',
    async (signal) => {
      const child = await startAndNote('out')
      child.kill(signal)
      const ended = await child.ended
      expect(ended.code).toBe(1)
      expect(codeOf(ended)).toBe('cancelled')
      const kept = (await notes('out')).length
      expect(kept).toBeGreaterThan(0)
      expect(ended.stdout).toContain(`${kept} finished shard`)
      expect((await readdir(at('.out.polygraft/output'))).length).toBe(kept)
      const resumed = await run(graft('out'))
      expect(resumed.stderr).toContain(`going on with ${kept} of`)
      expect(await contentOf('out')).toEqual(expected)
      expect(await left()).toEqual(['fault.mjs', 'out'])
    },
  )

  it('leaves nothing when no shard is finished', async () => {
    const child = start([...graft('out', { shard: '5GB' }), '--json'], await slowly(5))
    while (!existsSync(at('.out.polygraft/output/model.safetensors')))
      await new Promise((done) => setTimeout(done, 5))
    child.kill('SIGINT')
    expect(codeOf(await child.ended)).toBe('cancelled')
    expect(await left()).toEqual(['fault.mjs'])
  })
})

describe('what an interrupted run left', () => {
  const interrupted = async () => {
    const child = await startAndNote('out')
    child.kill('SIGKILL')
    await child.ended
    expect((await notes('out')).length).toBeGreaterThan(0)
  }

  it('is not gone on with for another recipe', async () => {
    await interrupted()
    await succeed(graft('fresh', { more: ['--lambda', '0.5'] }))
    const { stderr } = await run(graft('out', { more: ['--lambda', '0.5'] }))
    expect(stderr).not.toContain('going on')
    expect(await contentOf('out')).toEqual(await contentOf('fresh'))
    expect(await left()).toEqual(['fault.mjs', 'fresh', 'out'])
  })

  it('is not gone on with for other shards', async () => {
    await interrupted()
    await succeed(graft('fresh', { shard: '700KB' }))
    const { stderr } = await run(graft('out', { shard: '700KB' }))
    expect(stderr).not.toContain('going on')
    expect(await contentOf('out')).toEqual(await contentOf('fresh'))
  })

  it.each(['content', 'time'])('is not gone on with for an input of another %s', async (what) => {
    await copyOf(at('cpt'), at('mine'))
    const mine = at('mine/model.safetensors')
    await utimes(mine, 1000, 1000)
    const child = await startAndNote('out', graft('out', { cpt: 'mine' }))
    child.kill('SIGKILL')
    await child.ended
    if (what === 'content') await flipBit(mine)
    else await utimes(mine, 1000, 1001)
    await succeed(graft('fresh', { cpt: 'mine' }))
    const { stderr } = await run(graft('out', { cpt: 'mine' }))
    expect(stderr).not.toContain('going on')
    expect(await contentOf('out')).toEqual(await contentOf('fresh'))
  })

  it.each([
    ['cut off', (path: string) => truncate(path, 1000)],
    ['gone', (path: string) => rm(path)],
  ])('is written again where a finished shard is %s', async (_, spoil) => {
    await interrupted()
    const [shard] = await notes('out')
    await spoil(at(`.out.polygraft/output/${shard}`))
    // Killed once more while the shard is made anew: its size is right from the first byte on.
    const again = start(graft('out'), await slowly(20))
    while (!existsSync(at(`.out.polygraft/output/${shard}`))) await new Promise((done) => setTimeout(done, 1))
    again.kill('SIGKILL')
    await again.ended
    await succeed(graft('out'))
    expect(await contentOf('out')).toEqual(expected)
  })

  it('is whole again after a kill between the steps of publishing with --force', async () => {
    await interrupted()
    // The old folder has stepped aside, and the new one has not got its name yet.
    await copyOf(at('expected'), at('.out.polygraft/replaced'))
    expect((await runJson(graft('out'))).json.error.code).toBe('exists')
    expect(await contentOf('out')).toEqual(expected)
    await succeed(graft('out', { more: ['--force', '--lambda', '0.5'] }))
    await succeed(graft('fresh', { more: ['--force', '--lambda', '0.5'] }))
    expect(await contentOf('out')).toEqual(await contentOf('fresh'))
    expect(await left()).toEqual(['fault.mjs', 'fresh', 'out'])
  })
})

describe('two runs on one output', () => {
  it('one is told that it is busy, the other ends right', async () => {
    const first = await startAndNote('out', graft('out'), 50)
    for (const args of [
      graft('out'),
      graft('out', { more: ['--lambda', '0.5'] }),
      graft('out', { threads: '0' }),
    ])
      expect((await runJson(args)).json.error.code).toBe('busy')
    expect((await first.ended).code).toBe(0)
    expect(await contentOf('out')).toEqual(expected)
    expect(await left()).toEqual(['fault.mjs', 'out'])
  })

  it('at the same moment', async () => {
    const ended = await Promise.all([0, 1, 2].map(() => run([...graft('out'), '--json'])))
    const codes = ended.map((one) => (one.code === 0 ? 'ok' : codeOf(one))).sort()
    expect(codes.filter((code) => code === 'ok').length).toBe(1)
    for (const code of codes) expect(['ok', 'busy', 'exists']).toContain(code)
    expect(await contentOf('out')).toEqual(expected)
    expect(await left()).toEqual(['out'])
  })
})

describe('an input that changes while it is read', () => {
  it.each<[string, string[], (path: string) => Promise<unknown>]>([
    ['is touched', ['changed'], (path) => utimes(path, 1000, 1000)],
    [
      'is replaced',
      ['changed'],
      async (path) => {
        await copyOf(at('base/model.safetensors'), `${path}.new`)
        await rename(`${path}.new`, path)
      },
    ],
    ['is cut off', ['truncated', 'changed'], (path) => truncate(path, 5000)],
    ['is removed', ['changed', 'missing-file'], (path) => rm(path)],
  ])('%s: nothing is published', async (_, codes, change) => {
    await copyOf(at('cpt'), at('mine'))
    const child = await startAndNote('out', graft('out', { cpt: 'mine' }))
    await change(at('mine/model.safetensors'))
    const ended = await child.ended
    expect(ended.code).toBe(1)
    expect(codes).toContain(codeOf(ended))
    expect(ended.stdout).toContain('mine/model.safetensors')
    expect(await left()).toEqual(['fault.mjs', 'mine'])
  })

  it('is touched after it was measured: nothing is published', async () => {
    await copyOf(at('instruct'), at('mine'))
    const child = await startAndNote('out', await ties('out', 'mine'))
    await utimes(at('mine/model.safetensors'), 1000, 1000)
    const ended = await child.ended
    expect(ended.code).toBe(1)
    expect(codeOf(ended)).toBe('changed')
    expect(await left()).toEqual(['fault.mjs', 'mine', 'ties.yml'])
  })
})

describe('a fault of the system', () => {
  const after = (call: string, thread: string, fault: string, calls = 20) =>
    failing(`const real = fs.${call}
let calls = 0
if (${thread}) fs.${call} = (...args) => { if (++calls > ${calls}) { ${fault} } return real(...args) }`)

  it.each([
    ['reads', 'readSync', 'EIO', 'io'],
    ['writes', 'writeSync', 'EIO', 'io'],
    ['writes', 'writeSync', 'ENOSPC', 'disk-full'],
    ['writes', 'writeSync', 'EDQUOT', 'disk-full'],
  ])('in a thread that %s (%s, %s) is told, and nothing left', async (_, call, system, code) => {
    const ended = await run(
      [...graft('out'), '--json'],
      await after(call, '!isMainThread', `throw fault('${system}')`),
    )
    expect(ended.code).toBe(1)
    expect(codeOf(ended)).toBe(code)
    expect(await left()).toEqual(['fault.mjs'])
  })

  it('in a thread that measures is told, and nothing is begun', async () => {
    const ended = await run(
      [...(await ties('out', 'instruct')), '--json'],
      await after('readSync', '!isMainThread', `throw fault('EIO')`),
    )
    expect(ended.code).toBe(1)
    expect(codeOf(ended)).toBe('io')
    expect(await left()).toEqual(['fault.mjs', 'ties.yml'])
  })

  it.each([0, 3])('a thread that ends without a word is told (exit code %d)', async (exit) => {
    const ended = await run(
      [...graft('out'), '--json'],
      await after('writeSync', '!isMainThread', `process.exit(${exit})`),
    )
    expect(ended.code).toBe(1)
    expect(codeOf(ended)).toBe('thread')
    expect(await left()).toEqual(['fault.mjs'])
  })

  it('threads that never start are told', async () => {
    const ended = await run(
      [...graft('out'), '--json'],
      await failing('if (!isMainThread) throw new Error("no room")'),
    )
    expect(codeOf(ended)).toBe('thread')
    expect(ended.stdout).toContain('no room')
    expect(await left()).toEqual(['fault.mjs'])
  })
})

describe('a full disk', () => {
  /** Runs on a disk that has room for all but `missing` KiB more than the plan asks for. */
  async function onDisk(kib: number, use: (dir: string) => Promise<void>): Promise<boolean> {
    const disk = at('disk')
    await mkdir(disk)
    const system = (command: string, ...args: string[]) => execFileSync(command, args, { stdio: 'ignore' })
    try {
      system('mount', '-t', 'tmpfs', '-o', `size=${kib}k`, 'tmpfs', disk)
    } catch {
      return false
    }
    try {
      await use(disk)
    } finally {
      system('umount', '-l', disk)
    }
    return true
  }
  const NO_MOUNT = 'mounting a small disk takes more rights than these'
  const sizeKib = () => Math.ceil([...expected.values()].reduce((sum, { length }) => sum + length, 0) / 1024)

  it('is known before the start', async (context) => {
    const could = await onDisk(sizeKib() - 500, async (disk) => {
      expect((await runJson(graft('disk/out'))).json.error.code).toBe('disk-full')
      expect(await readdir(disk)).toEqual([])
    })
    if (!could) context.skip(NO_MOUNT)
  })

  it.for(['0', '2'])(
    'is told when somebody else fills it meanwhile, %s threads',
    async (threads, context) => {
      const could = await onDisk(sizeKib() + 200, async (disk) => {
        const watcher = watch(disk)
        const child = start([...graft('disk/out', { threads }), '--json'], await slowly(5))
        // The first sign of the run: its hidden folder.
        await new Promise((done) => watcher.once('change', done))
        watcher.close()
        await writeFile(join(disk, 'filler'), Buffer.alloc(1_000_000))
        const ended = await child.ended
        expect(codeOf(ended)).toBe('disk-full')
        expect(await readdir(disk)).toEqual(['filler'])
      })
      if (!could) context.skip(NO_MOUNT)
    },
  )

  it('is told when only the small files have no room any more', async (context) => {
    const shardKib = [...expected].reduce(
      (sum, [name, { length }]) => sum + (name.endsWith('.safetensors') ? Math.ceil(length / 4096) * 4 : 0),
      0,
    )
    // Room for the shards and their notes, a page each, and for what the check before the start asks for.
    const notesKib = [...expected.keys()].filter((name) => name.endsWith('.safetensors')).length * 4
    let seen = ''
    for (const spare of [8, 12, 16, 20, 24]) {
      const could = await onDisk(shardKib + notesKib + spare, async (disk) => {
        const ended = await run([...graft('disk/out'), '--json'])
        seen += ended.code === 0 ? ' ok' : ` ${codeOf(ended)}`
        expect(await readdir(disk)).toEqual(ended.code === 0 ? ['out'] : [])
        if (ended.code === 0) expect(await contentOf('disk/out')).toEqual(expected)
      })
      await rm(at('disk'), { recursive: true })
      if (!could) return context.skip(NO_MOUNT)
    }
    expect(seen).toMatch(/^( disk-full)+( ok)*$/)
  })
})
