import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type ResumableFolder, resumeFolder, workFolder } from '@polygraft/tensor-io/node'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { mountSmall, NO_MOUNT } from '../../test/disks.js'
import { failure, pattern } from '../../test/support.js'
import { writeDurably } from './_write-durably.js'

let root: string
beforeEach(() => {
  root = realpathSync(mkdtempSync(join(tmpdir(), 'tensor-io-')))
})
afterEach(() => rmSync(root, { recursive: true }))

const at = (name: string) => join(root, name)
const open = (key = 'k', options = {}) => resumeFolder(at('out'), { key, ...options })
const hidden = () => workFolder(at('out'))

async function finish(folder: ResumableFolder, file: string, content = file): Promise<void> {
  await folder.writeFile(file, content)
  await folder.notes.write(file, `note of ${file}\nsecond line`)
}

/** What a killed run leaves: its files, and the lock of a process that is no more. */
async function killed(
  files: readonly string[],
  key = 'k',
  unfinished: readonly string[] = [],
): Promise<void> {
  const folder = await open(key)
  for (const file of files) await finish(folder, file)
  for (const file of unfinished) await folder.writeFile(file, 'half')
  await folder.leave()
  for (const file of unfinished) writeFileSync(join(folder.path, file), 'half')
  mkdirSync(folder.path, { recursive: true })
  writeFileSync(join(hidden(), 'lock'), '')
}

const notesOf = (folder: ResumableFolder) => Object.fromEntries(folder.notes.earlier)

/** Everything below the folder. */
function files(): string[] {
  return (readdirSync(root, { recursive: true }) as string[]).sort()
}

describe('resumeFolder', () => {
  it('publishes, and leaves nothing beside the output', async () => {
    const folder = await open()
    expect(folder.notes.earlier.size).toBe(0)
    await finish(folder, 'a')
    await folder.writeFile('b', 'b')
    expect(readdirSync(root)).toEqual(['.out.polygraft'])
    await folder.publish()
    expect(files()).toEqual(['out', 'out/a', 'out/b'])
    expect(await folder.leave()).toEqual({ finished: 0, begun: 0 })
    await folder.discard()
    expect(files()).toEqual(['out', 'out/a', 'out/b'])
  })

  it('goes on with what was noted under the same key', async () => {
    await killed(['a', 'b'], 'k', ['c'])
    const folder = await open()
    expect(notesOf(folder)).toEqual({ a: 'note of a\nsecond line', b: 'note of b\nsecond line' })
    await folder.writeFile('c', 'c')
    await folder.publish()
    expect(files()).toEqual(['out', 'out/a', 'out/b', 'out/c'])
    expect(readFileSync(at('out/c'), 'utf8')).toBe('c')
  })

  it('begins anew under another key', async () => {
    await killed(['a', 'b'])
    const folder = await open('other')
    expect(folder.notes.earlier.size).toBe(0)
    expect(readdirSync(folder.path)).toEqual([])
    await folder.discard()
    expect(files()).toEqual([])
  })

  it.each([
    ['is gone', (path: string) => rmSync(path)],
    ['ends early', (path: string) => truncateSync(path, 0)],
    ['has grown', (path: string) => writeFileSync(path, 'ab')],
    ['is a folder', (path: string) => [rmSync(path), mkdirSync(path)]],
  ])('forgets the note of a file that %s, for good', async (_, spoil) => {
    await killed(['a', 'b'])
    spoil(join(hidden(), 'output/a'))
    const folder = await open()
    expect([...folder.notes.earlier.keys()]).toEqual(['b'])
    // A file that is made anew has its whole size at once; a kill now must not let it pass for the finished one.
    expect(readdirSync(join(hidden(), 'notes'))).toEqual(['b'])
    expect(await folder.leave()).toEqual({ finished: 1, begun: 0 })
    expect(readdirSync(join(hidden(), 'output'))).toEqual(['b'])
  })

  it('forgets a note that is damaged', async () => {
    await killed(['a', 'b'])
    writeFileSync(join(hidden(), 'notes/a'), 'nonsense')
    expect([...(await open()).notes.earlier.keys()]).toEqual(['b'])
  })

  it('goes on after a run that was killed while it published or removed', async () => {
    const steps = ['output', 'notes', 'key', 'output/a', 'notes/a', 'lock']
    await fc.assert(
      fc.asyncProperty(fc.subarray(steps), fc.constantFrom('k', 'other'), async (removed, key) => {
        await killed(['a', 'b'])
        for (const name of removed) rmSync(join(hidden(), name), { recursive: true, force: true })
        const folder = await open(key)
        for (const file of folder.notes.earlier.keys()) expect(existsSync(join(folder.path, file))).toBe(true)
        for (const file of ['a', 'b']) if (!folder.notes.earlier.has(file)) await finish(folder, file)
        await folder.publish()
        expect(files()).toEqual(['out', 'out/a', 'out/b'])
        rmSync(at('out'), { recursive: true })
      }),
      { numRuns: 25 },
    )
  })

  it('is one run at a time', async () => {
    const folder = await open()
    await finish(folder, 'a')
    for (const key of ['k', 'other']) expect((await failure(() => open(key))).code).toBe('busy')
    await folder.publish()
    expect((await failure(() => open())).code).toBe('exists')
    expect(files()).toEqual(['out', 'out/a'])
  })

  it('gives one of many the turn, and the next one when that has ended, without a trace', async () => {
    const codes = new Set<string>()
    for (let round = 0; round < 10; round++) {
      const run = async (_: unknown, i: number) => {
        const folder = await resumeFolder(at('new/out'), { key: `${i % 2}` })
        await finish(folder, 'a', `${i % 2}`)
        if (i % 3 === 0) await folder.publish()
        else await folder.discard()
      }
      const runs = await Promise.allSettled(Array.from({ length: 12 }, run))
      for (const ended of runs) if (ended.status === 'rejected') codes.add(ended.reason.code)
      const left = files()
      if (existsSync(at('new/out'))) expect(left).toEqual(['new', 'new/out', 'new/out/a'])
      // The parent goes with the run that made it, unless another one is in it then.
      else expect([[], ['new']]).toContainEqual(left)
      rmSync(at('new'), { recursive: true, force: true })
    }
    expect([...codes].filter((code) => code !== 'busy' && code !== 'exists')).toEqual([])
  })
})

describe('leave', () => {
  it('keeps what was noted and nothing else, and lets the next run in', async () => {
    const folder = await open()
    await finish(folder, 'a')
    const unfinished = await folder.createFile('b', 100)
    await folder.writeFile('sub/c', 'c')
    expect(await folder.leave()).toEqual({ finished: 1, begun: 0 })
    expect(readdirSync(join(hidden(), 'output'))).toEqual(['a'])
    expect((await failure(() => unfinished.write(pattern(1), 0))).code).toBe('closed')
    expect((await failure(() => folder.notes.write('b', ''))).code).toBe('closed')
    expect([...(await open()).notes.earlier.keys()]).toEqual(['a'])
  })

  it('discards where nothing was noted, parents included', async () => {
    const folder = await resumeFolder(at('x/y/out'), { key: 'k' })
    await folder.createFile('b', 100)
    expect(await folder.leave()).toEqual({ finished: 0, begun: 0 })
    expect(files()).toEqual([])
  })
})

describe('a folder that is replaced', () => {
  const earlier = (name: string, content = 'old') => {
    mkdirSync(name, { recursive: true })
    writeFileSync(join(name, 'config.json'), content)
  }
  const shown = () => readFileSync(at('out/config.json'), 'utf8')

  it('is there until the new one has its name', async () => {
    earlier(at('out'))
    const folder = await open('k', { force: true })
    await finish(folder, 'config.json', 'new')
    expect(shown()).toBe('old')
    await folder.publish()
    expect(files()).toEqual(['out', 'out/config.json'])
    expect(shown()).toBe('new')
  })

  it('comes back when the run was killed between the two renames', async () => {
    await killed(['config.json'])
    earlier(join(hidden(), 'replaced'))
    expect((await failure(() => open())).code).toBe('exists')
    expect(shown()).toBe('old')
    renameSync(at('out'), join(hidden(), 'replaced'))
    const folder = await open('other', { force: true })
    expect(shown()).toBe('old')
    await folder.discard()
    expect(files()).toEqual(['out', 'out/config.json'])
  })

  it('goes when the run was killed after them', async () => {
    await killed([])
    earlier(join(hidden(), 'replaced'))
    earlier(join(hidden(), 'replaced-leaving'))
    earlier(at('out'), 'new')
    const folder = await open('k', { force: true })
    expect(existsSync(join(hidden(), 'replaced'))).toBe(false)
    await folder.discard()
    expect(files()).toEqual(['out', 'out/config.json'])
    expect(shown()).toBe('new')
  })

  it('comes back when the new one cannot be moved in', async () => {
    earlier(at('out'))
    const folder = await open('k', { force: true })
    rmSync(folder.path, { recursive: true })
    expect((await failure(() => folder.publish())).code).toBe('missing-file')
    await folder.discard()
    expect(files()).toEqual(['out', 'out/config.json'])
    expect(shown()).toBe('old')
  })
})

describe('a full disk', () => {
  it.for(['while the folder is made', 'while a note is written', 'while a small file is written'])(
    'is told, and leaves nothing: %s',
    async (when, context) => {
      const unmount = mountSmall(at('disk'), 64)
      if (!unmount) return context.skip(NO_MOUNT)
      try {
        const disk = at('disk')
        const fill = (kib: number) => writeFileSync(join(disk, 'filler'), pattern(kib * 1024))
        const out = join(disk, 'out')
        if (when === 'while the folder is made') {
          fill(64)
          expect((await failure(() => resumeFolder(out, { key: 'k'.repeat(5000) }))).code).toBe('disk-full')
          rmSync(join(disk, 'filler'))
          expect(readdirSync(disk)).toEqual([])
          return
        }
        const folder = await resumeFolder(out, { key: 'k' })
        await folder.writeFile('a', 'a')
        fill(52)
        const large = 'x'.repeat(64 * 1024)
        const step =
          when === 'while a note is written' ? folder.notes.write('a', large) : folder.writeFile('b', large)
        expect((await failure(() => step)).code).toBe('disk-full')
        expect(readdirSync(disk)).toEqual(['filler'])
        expect((await failure(() => folder.publish())).code).toBe('disk-full')
        expect(await folder.leave()).toEqual({ finished: 0, begun: 0 })
      } finally {
        unmount()
      }
    },
  )
})

describe('writeDurably', () => {
  it('has the old content or the new one, and no other file', async (context) => {
    const unmount = mountSmall(at('disk'), 16)
    if (!unmount) return context.skip(NO_MOUNT)
    try {
      const path = at('disk/x')
      await writeDurably(path, 'old')
      await writeDurably(path, 'new')
      expect(readFileSync(path, 'utf8')).toBe('new')
      await expect(writeDurably(path, 'x'.repeat(100_000))).rejects.toMatchObject({ code: 'ENOSPC' })
      await expect(writeDurably(at('disk/no/x'), '')).rejects.toMatchObject({ code: 'ENOENT' })
      expect(readFileSync(path, 'utf8')).toBe('new')
      expect(readdirSync(dirname(path))).toEqual(['x'])
    } finally {
      unmount()
    }
  })
})
