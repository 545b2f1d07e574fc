import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createFolder, outputProblems } from '@polygraft/tensor-io/node'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { mountSmall, NO_MOUNT } from '../../test/disks.js'
import { failure, pattern } from '../../test/support.js'

let root: string
beforeEach(() => {
  root = realpathSync(mkdtempSync(join(tmpdir(), 'tensor-io-')))
})
afterEach(() => {
  vi.restoreAllMocks()
  rmSync(root, { recursive: true })
})

const at = (name: string) => join(root, name)
const text = (name: string) => readFileSync(at(name), 'utf8')

/** An earlier output with one file. */
function earlier(name: string, content = 'old'): string {
  mkdirSync(at(name), { recursive: true })
  writeFileSync(join(at(name), 'config.json'), content)
  return at(name)
}

describe('createFolder', () => {
  it('shows the folder complete, and only once it is published', async () => {
    const folder = await createFolder(at('out'))
    expect(dirname(folder.path)).toBe(root)
    expect(folder.path).toMatch(/\.out\.polygraft-\d+-[0-9a-f]{8}$/)
    const file = await folder.createFile('model.safetensors', 300)
    await Promise.all([file.write(pattern(100), 200), file.write(pattern(200), 0)])
    await file.close()
    await file.close()
    await folder.writeFile('config.json', '{"a":"é"}')
    await folder.writeFile('sub/deep/bytes', pattern(5))
    await folder.writeFile('copy', new Blob([pattern(9_000_000) as Uint8Array<ArrayBuffer>]))
    await folder.writeFile('empty', new Blob([]))
    expect(existsSync(at('out'))).toBe(false)
    await folder.publish()
    expect(readdirSync(root)).toEqual(['out'])
    expect(readFileSync(at('out/model.safetensors'))).toEqual(Buffer.from([...pattern(200), ...pattern(100)]))
    expect(text('out/config.json')).toBe('{"a":"é"}')
    expect([...readFileSync(at('out/sub/deep/bytes'))]).toEqual([0, 1, 2, 3, 4])
    expect(Buffer.from(pattern(9_000_000)).equals(readFileSync(at('out/copy')))).toBe(true)
    expect(text('out/empty')).toBe('')
    await folder.discard()
    expect(existsSync(at('out/config.json'))).toBe(true)
  })

  it('leaves nothing behind when it is discarded, parents included', async () => {
    const folder = await createFolder(at('a/b/out'))
    const open = await folder.createFile('sub/open')
    await open.write(pattern(10), 0)
    await folder.discard()
    await folder.discard()
    expect(readdirSync(root)).toEqual([])
    await open.close()
    expect((await failure(() => open.write(pattern(1), 0))).code).toBe('closed')
    expect((await failure(() => folder.writeFile('late', ''))).code).toBe('closed')
    expect((await failure(() => folder.publish())).code).toBe('closed')
    expect(readdirSync(root)).toEqual([])
  })

  it('leaves nothing behind when it is discarded in the middle of everything', async () => {
    const folder = await createFolder(at('out'))
    const writeOne = async (_: unknown, i: number) => {
      const file = await folder.createFile(`sub${i}/x`)
      for (let n = 0; n < 20; n++) await file.write(pattern(100_000), n * 100_000)
      await file.close()
    }
    const work = Promise.allSettled(Array.from({ length: 20 }, writeOne))
    await new Promise((resolve) => setTimeout(resolve, 5))
    await folder.discard()
    for (const result of await work)
      if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'closed' })
    expect(readdirSync(root)).toEqual([])
  })

  it('keeps a parent folder that somebody else uses by now', async () => {
    const folder = await createFolder(at('a/b/out'))
    writeFileSync(at('a/mine'), '')
    await folder.discard()
    expect(readdirSync(at('a'))).toEqual(['mine'])
  })

  it.each(['../x', '/etc/x', 'a/../../x', '', '.', '..', 'a//b', 'a\\b', 'c:x', 'a\0b'])(
    'refuses the file name %j',
    async (name) => {
      const folder = await createFolder(at('out'))
      expect((await failure(() => folder.createFile(name))).code).toBe('path-escape')
      await folder.discard()
      expect(readdirSync(root)).toEqual([])
    },
  )

  it.each(['config.json', 'sub/config.json'])(
    'does not come back when somebody removes it, for %s',
    async (name) => {
      const folder = await createFolder(at('out'))
      await folder.writeFile('model.safetensors', pattern(10))
      rmSync(folder.path, { recursive: true })
      await expect(folder.writeFile(name, '{}')).rejects.toMatchObject({ code: 'missing-file' })
      await folder.discard()
      expect(readdirSync(root)).toEqual([])
    },
  )

  it('refuses a name twice, and lets the caller go on', async () => {
    const folder = await createFolder(at('out'))
    await folder.writeFile('a', '1')
    expect((await failure(() => folder.writeFile('a', '2'))).code).toBe('io')
    await folder.publish()
    expect(text('out/a')).toBe('1')
  })

  it('shortens a long name for the temporary folder only', async () => {
    const folder = await createFolder(at('o'.repeat(250)))
    await folder.publish()
    expect(readdirSync(root)).toEqual(['o'.repeat(250)])
  })
})

describe('an existing output', () => {
  it('is refused without force, also when it appears in the meantime', async () => {
    earlier('out')
    expect((await failure(() => createFolder(at('out')))).code).toBe('exists')
    const folder = await createFolder(at('late'))
    earlier('late')
    expect((await failure(() => folder.publish())).code).toBe('exists')
    await folder.discard()
    expect(readdirSync(root)).toEqual(['late', 'out'])
    expect(text('late/config.json')).toBe('old')
  })

  it('is replaced with force, whole, at the end', async () => {
    earlier('out')
    writeFileSync(at('out/stale'), '')
    const folder = await createFolder(at('out'), { force: true })
    await folder.writeFile('config.json', 'new')
    expect(text('out/config.json')).toBe('old')
    await folder.publish()
    expect(readdirSync(root)).toEqual(['out'])
    expect(readdirSync(at('out'))).toEqual(['config.json'])
    expect(text('out/config.json')).toBe('new')
  })

  it('survives with force when the new one is discarded or cannot be moved in', async () => {
    earlier('out')
    const discarded = await createFolder(at('out'), { force: true })
    await discarded.discard()
    expect(text('out/config.json')).toBe('old')
    const broken = await createFolder(at('out'), { force: true })
    const { path } = broken
    rmSync(path, { recursive: true })
    expect((await failure(() => broken.publish())).code).toBe('missing-file')
    await broken.discard()
    expect(readdirSync(root)).toEqual(['out'])
    expect(text('out/config.json')).toBe('old')
  })

  it('behind a link is replaced where it is', async () => {
    earlier('real/out')
    symlinkSync(at('real/out'), at('link'))
    const folder = await createFolder(at('link'), { force: true })
    expect(dirname(folder.path)).toBe(at('real'))
    await folder.writeFile('config.json', 'new')
    await folder.publish()
    expect(text('link/config.json')).toBe('new')
    expect(readdirSync(at('real'))).toEqual(['out'])
  })

  it('is not replaced when it is a file, a home, or no checkpoint', async () => {
    writeFileSync(at('file'), '')
    mkdirSync(at('photos'))
    writeFileSync(at('photos/cat.jpg'), '')
    const codeOf = async (dir: string) => (await failure(() => createFolder(dir, { force: true }))).code
    expect(await codeOf(at('file'))).toBe('exists')
    expect(await codeOf(at('photos'))).toBe('unsafe-output')
    expect(await codeOf(homedir())).toBe('unsafe-output')
    expect(await codeOf('.')).toBe('unsafe-output')
    expect(await codeOf('/')).toBe('unsafe-output')
    symlinkSync(at('nowhere'), at('dangling'))
    expect(await codeOf(at('dangling'))).toBe('exists')
  })
})

describe('inputs', () => {
  it.each([
    ['the output itself', 'in', 'in'],
    ['a folder around the output', 'in/sub/out', 'in'],
    ['a folder inside of the output', 'in', 'in/base'],
    ['the output through a link', 'link', 'in'],
    ['a folder around the output through a link', 'link/out', 'in'],
    ['a file inside of the output', 'in', 'in/base/config.json'],
  ])('must not be %s', async (_, output, input) => {
    earlier('in')
    earlier('in/base')
    symlinkSync(at('in'), at('link'))
    const options = { force: true, inputs: [at(input)] }
    expect((await failure(() => createFolder(at(output), options))).code).toBe('overlapping-paths')
    expect((await outputProblems(at(output), options)).map(({ code }) => code)).toContain('overlapping-paths')
    expect(readdirSync(root)).toEqual(['in', 'link'])
  })

  it('may be neighbours, files in the same folder, or no paths at all', async () => {
    const inputs = [earlier('in'), join(earlier('.'), 'config.json'), 'https://example.com/m', at('in-2')]
    const folder = await createFolder(at('in-2'), { inputs })
    await folder.discard()
    expect(readdirSync(root)).toEqual(['config.json', 'in'])
  })
})

describe('a full disk', () => {
  it('discards the output and says so', async (context) => {
    const disk = at('disk')
    const unmount = mountSmall(disk, 1024)
    if (!unmount) return context.skip(NO_MOUNT)
    try {
      const folder = await createFolder(join(disk, 'out'))
      const small = await folder.createFile('small')
      await small.write(pattern(1000), 0)
      const large = await folder.createFile('large')
      const writes = [0, 1, 2, 3].map((i) => large.write(pattern(600_000), i * 600_000))
      const results = await Promise.allSettled(writes)
      const failed = results.filter((result) => result.status === 'rejected')
      expect(failed.length).toBeGreaterThan(0)
      for (const { reason } of failed) expect(reason).toMatchObject({ code: 'disk-full' })
      expect(readdirSync(disk)).toEqual([])
      expect((await failure(() => small.write(pattern(1), 0))).code).toBe('disk-full')
      expect((await failure(() => folder.publish())).code).toBe('disk-full')
      await small.close()
      await folder.discard()
    } finally {
      unmount()
    }
  })
})
