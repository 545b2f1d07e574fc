import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { beforeAll, describe, expect, it } from 'vitest'
import {
  BASE,
  copyOf,
  createTemp,
  editJson,
  listing,
  problemOf,
  runJson,
  start,
  succeed,
  type Temp,
  tensorsOf,
} from './support.js'

const data = (name: string) => fileURLToPath(new URL(`../../../tools/trio/data/${name}`, import.meta.url))
const SMALL = ['--steps', '12', '--batch-tokens', '64', '--context', '64', '--warmup', '2']

let temp: Temp
let moe: string

beforeAll(async () => {
  temp = await createTemp()
  moe = temp.at('moe')
  await succeed(['upcycle', BASE, '-o', moe, '--languages', 'c,d', '--seed', '0'])
})

const cpt = (out: string, ...more: string[]) => [
  'train',
  'cpt',
  moe,
  '--data',
  `c=${data('raw-c.txt')}`,
  '--data',
  `d=${data('raw-d.txt')}`,
  ...SMALL,
  '-o',
  out,
  ...more,
]

const linesOf = async (out: string) => {
  const text = await readFile(`${out}.run/log.jsonl`, 'utf8').catch(() => '')
  return text.split('\n').slice(0, -1)
}

/** Weights of an output: name, type and bytes. */
const weightsOf = async (out: string) =>
  [...(await tensorsOf(out))].map(([name, { type, bytes }]) => `${name} ${type} ${bytes.toString('base64')}`)

describe('train', () => {
  it('cpt, review and sft write checkpoints that go on in the road; frozen tensors stay to the byte', async () => {
    const result = await succeed(cpt(temp.at('cpt')))
    expect(result).toMatchObject({ steps: 12, out: temp.at('cpt') })
    expect(result.tokensPerSecond).toBeGreaterThan(0)
    await succeed(cpt(temp.at('threads'), '--threads', '2'))
    expect(await weightsOf(temp.at('threads'))).toEqual(await weightsOf(temp.at('cpt')))
    const lines = (await linesOf(temp.at('cpt'))).map((line) => JSON.parse(line))
    expect(lines.map(({ step }) => step)).toEqual(Array.from({ length: 12 }, (_, i) => i + 1))
    expect([lines[0].loss, lines[11].loss]).toEqual([result.firstLoss, result.finalLoss])
    const [before, after] = [await tensorsOf(moe), await tensorsOf(temp.at('cpt'))]
    for (const [name, { type, bytes }] of after) {
      expect(type).toBe(before.get(name)!.type)
      const isTrained = /block_sparse_moe\.(gate|experts\.[12])/.test(name)
      expect(bytes.equals(before.get(name)!.bytes), name).toBe(!isTrained)
    }
    expect(JSON.parse(await readFile(temp.at('cpt/polygraft.json'), 'utf8')).recipe.at(-1)).toMatchObject({
      op: 'train',
      stage: 'cpt',
    })
    await succeed(['verify', temp.at('cpt')])
    const all = ['--data', `a=${data('raw-a.txt')}`, '--data', `c=${data('raw-c.txt')}`, '--original', 'a']
    await succeed(['train', 'review', temp.at('cpt'), ...all, ...SMALL, '-o', temp.at('review')])
    const reviewed = await tensorsOf(temp.at('review'))
    for (const [name, { bytes }] of reviewed)
      expect(bytes.equals(after.get(name)!.bytes), name).toBe(!name.endsWith('gate.weight'))
    await succeed([
      'train',
      'sft',
      BASE,
      '--data',
      `a=${data('instruct-a.jsonl')}`,
      ...SMALL,
      '-o',
      temp.at('sft'),
    ])
  })

  it('ends in the same bytes after kill -9, wherever', async () => {
    const expected = temp.at('whole')
    const long = ['--steps', '40', '--save-every', '3']
    await succeed(cpt(expected, ...long))
    const out = temp.at('killed')
    let resumedAt = 0
    for (const lines of [2, 8, 15]) {
      const child = start(cpt(out, ...long, ...(existsSync(`${out}.run/run.json`) ? ['--resume'] : [])))
      while ((await linesOf(out)).length < lines && child.exitCode === null) await sleep(1)
      child.kill('SIGKILL')
      await child.ended
      expect(existsSync(out)).toBe(false)
      resumedAt = (await readdir(`${out}.run`)).filter((name) => name.startsWith('step-')).length
    }
    expect(resumedAt).toBeGreaterThan(0)
    await succeed(cpt(out, ...long, '--resume'))
    expect(await weightsOf(out)).toEqual(await weightsOf(expected))
    const log = async (path: string) =>
      (await linesOf(path)).map((line) => JSON.parse(line)).map(({ tokensPerSecond: _, ...line }) => line)
    expect(await log(out)).toEqual(await log(expected))
    expect((await readdir(temp.dir)).filter((name) => name.startsWith('.'))).toEqual([])
  })

  it('a full disk while saving leaves the last checkpoint, from which it goes on once there is room', async (context) => {
    const disk = temp.at('disk')
    await mkdir(disk)
    const system = (command: string, ...args: string[]) => execFileSync(command, args, { stdio: 'ignore' })
    try {
      system('mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', disk)
    } catch {
      return context.skip('mounting a small disk takes more rights than these')
    }
    try {
      const out = join(disk, 'out')
      const { code, json } = await runJson(cpt(out, '--save-every', '4'))
      expect([code, json.error.code]).toEqual([1, 'disk-full'])
      expect((await readdir(`${out}.run`)).filter((name) => name.includes('step'))).toEqual(['step-00000004'])
      system('mount', '-o', 'remount,size=64m', disk)
      await succeed(cpt(out, '--save-every', '4', '--resume'))
      expect(await weightsOf(out)).toEqual(await weightsOf(temp.at('cpt')))
    } finally {
      system('umount', '-l', disk)
    }
  })

  it('Ctrl-C keeps the step it is at', async () => {
    const out = temp.at('stopped')
    const child = start(cpt(out, '--steps', '100000'))
    while ((await linesOf(out)).length < 2 && child.exitCode === null) await sleep(1)
    child.kill('SIGINT')
    const { code, stderr } = await child.ended
    expect(code).toBe(1)
    const step = /step (\d+) is kept/.exec(stderr)![1]!
    expect(existsSync(`${out}.run/step-${step.padStart(8, '0')}/training.state`)).toBe(true)
  })
})

describe('train refuses, and writes nothing', () => {
  const cases: readonly (readonly [string, () => Promise<string[]> | string[], string, object])[] = [
    [
      'broken lines, all of them',
      async () => {
        const file = temp.at('broken.jsonl')
        await writeFile(file, '{"text": "Kai gavo"}\n{"text": }\nnothing\n')
        return ['train', 'cpt', moe, '--data', `c=${file}`]
      },
      'bad-data',
      { line: 2 },
    ],
    [
      'a document longer than the context',
      () => ['train', 'cpt', moe, '--data', `c=${data('raw-c.txt')}`, '--context', '20'],
      'too-long',
      { line: 1 },
    ],
    [
      'a language without data',
      () => ['train', 'cpt', moe, '--data', `c=${data('raw-c.txt')}`, '--mix', 'c=1,el=2'],
      'no-data',
      { received: 'no document in el' },
    ],
    [
      'a pattern that matches nothing',
      () => ['train', 'cpt', moe, '--data', `c=${data('raw-c.txt')}`, '--freeze', '*.w9.*'],
      'no-match',
      { received: '*.w9.*' },
    ],
    [
      'a review of a dense model',
      () => ['train', 'review', BASE, '--data', `c=${data('raw-c.txt')}`],
      'nothing-to-train',
      {},
    ],
    [
      'a file that is not there',
      () => ['train', 'cpt', moe, '--data', `c=${temp.at('none.txt')}`],
      'missing-file',
      {},
    ],
    [
      'a run that was not begun',
      () => ['train', 'cpt', moe, '--data', `c=${data('raw-c.txt')}`, '--context', '64', '--resume'],
      'no-run',
      {},
    ],
    [
      'an id past the vocabulary',
      async () => {
        const model = await copyOf(moe, temp.at('unknown'))
        await editJson(join(model, 'tokenizer.json'), (value) => {
          const { vocab } = value.model as { vocab: Record<string, number> }
          vocab.Kai = 4000
        })
        return ['train', 'cpt', model, '--data', `c=${data('raw-a.txt')}`]
      },
      'vocabulary-mismatch',
      { received: '"Kai" with id 4000' },
    ],
    [
      'a checkpoint of another shape than its config',
      async () => {
        const model = await copyOf(moe, temp.at('shape'))
        await editJson(join(model, 'config.json'), (value) => {
          value.intermediate_size = 96
        })
        return ['train', 'cpt', model, '--data', `c=${data('raw-c.txt')}`]
      },
      'shape-mismatch',
      {},
    ],
  ]
  it.each(cases)('%s', async (_, args, code, fields) => {
    const given = await args()
    const before = await listing(temp.dir)
    const { code: exit, json } = await runJson([...given, ...SMALL.slice(0, 4), '--out', temp.at('refused')])
    expect(exit).toBe(1)
    expect(problemOf(json.error.problems, code)).toMatchObject(fields)
    expect(await listing(temp.dir)).toEqual(before)
  })

  it('an earlier run that nobody asked for, and going on with other options', async () => {
    const out = temp.at('other')
    await succeed(cpt(out))
    const again = await runJson(cpt(temp.at('other'), '--force', '--resume', '--rate', '0.5'))
    expect(problemOf(again.json.error.problems, 'other-run')).toMatchObject({
      expected: '0.002',
      received: '0.5',
    })
    expect((await runJson(cpt(`${out}/`, '--resume'))).json.error.code).toBe('exists')
  })
})

describe('export-cpt', () => {
  it('writes the script, what each stage trains, and launch commands in the languages of the experts', async () => {
    const { files } = await succeed(['export-cpt', moe, '-o', temp.at('recipe')])
    expect((await readdir(temp.at('recipe'))).sort()).toEqual([...files].sort())
    expect(await readFile(temp.at('recipe/launch.sh'), 'utf8')).toContain('--data c=c.jsonl --data d=d.jsonl')
    const stages = JSON.parse(await readFile(temp.at('recipe/stages.json'), 'utf8'))
    expect([stages.cpt.losses.balance, stages.review.losses.lpr]).toEqual([0.01, 0.1])
  })

  it('refuses a dense model', async () => {
    const { json } = await runJson(['export-cpt', BASE, '-o', temp.at('none')])
    expect(json.error.code).toBe('not-a-mixture')
  })
})
