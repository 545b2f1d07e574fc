import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type DType, reads } from '@polygraft/tensor'
import { readText } from '@polygraft/tensor-io'
import { openFolder, openPath } from '@polygraft/tensor-io/node'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { cases, failure, folderOf, goldenFolder, pattern, specs } from '../../test/support.js'

const INDEX = 'model.safetensors.index.json'
const model = [
  ['a', { dtype: 'F32' as DType, shape: [100] }],
  ['b', { dtype: 'BF16' as DType, shape: [2000] }],
] as const
let root: string
beforeEach(() => {
  root = realpathSync(mkdtempSync(join(tmpdir(), 'tensor-io-')))
})
afterEach(() => rmSync(root, { recursive: true }))

function write(folder: string, files: ReadonlyMap<string, Uint8Array | string>): string {
  for (const [name, data] of files) {
    const path = join(root, folder, name)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, data)
  }
  return join(root, folder)
}

describe('openPath', () => {
  it.each(cases.folders)('opens what the reference wrote: $folder', async ({ folder, tensors }) => {
    const checkpoint = await openPath(`${goldenFolder}${folder}`)
    const found = [...checkpoint.tensors].map(([name, { dtype, shape }]) => [name, { dtype, shape }] as const)
    expect(new Map(found)).toEqual(new Map(specs(tensors)))
    const [source] = [...checkpoint.sources.values()]
    for (const { expr } of checkpoint.tensors.values()) {
      const [read] = [...reads(expr)]
      const { file, begin, end } = source!.tensors.get(read!.tensor)!
      const bytes = await source!.shards.get(file)!.slice(begin, end).arrayBuffer()
      expect(new Uint8Array(bytes)).toEqual(pattern(end - begin))
    }
  })

  it('carries all other files, but nothing hidden', async () => {
    const extra = { 'config.json': '{"a":1}', 'sub/notes.txt': 'hi', '.git/HEAD': '', '.gitattributes': '' }
    const folder = write('model', folderOf(model, 100, extra))
    const checkpoint = await openPath(folder)
    expect([...checkpoint.files.keys()]).toEqual(['sub/notes.txt'])
    expect(await readText(checkpoint.files.get('sub/notes.txt')!)).toBe('hi')
    expect(checkpoint.files.get('sub/notes.txt')?.path).toBe(join(folder, 'sub/notes.txt'))
    expect(checkpoint.config).toEqual({ a: 1 })
    const [source] = [...checkpoint.sources.values()]
    expect(source?.location).toBe(folder)
    for (const [name, { path }] of source!.shards) expect(path).toBe(join(folder, name))
  })

  it('opens one file, with the config beside it or without', async () => {
    const folder = write('model', folderOf(model, 1e9, { 'tokenizer.json': '{}' }))
    const path = join(folder, 'model.safetensors')
    const bare = await openPath(path)
    expect([bare.config, bare.files.size, bare.tensors.size]).toEqual([{}, 0, 2])
    writeFileSync(join(folder, 'config.json'), '{"a":1}')
    expect((await openPath(path)).config).toEqual({ a: 1 })
  })

  it('gives one id to equal checkpoints in different places', async () => {
    const ids = []
    for (const [folder, limit] of [
      ['a', 1e9],
      ['b', 100],
      ['a', 1e9],
    ] as const)
      ids.push([...(await openPath(write(folder, folderOf(model, limit)))).sources.keys()][0])
    expect(new Set(ids).size).toBe(1)
  })

  it('refuses what is no checkpoint', async () => {
    expect((await failure(() => openPath(join(root, 'none')))).code).toBe('missing-file')
    writeFileSync(join(root, 'model.bin'), '')
    expect((await failure(() => openPath(join(root, 'model.bin')))).code).toBe('not-a-checkpoint')
    expect((await failure(() => openFolder(join(root, 'model.bin')))).code).toBe('missing-file')
    expect((await failure(() => openPath(root))).code).toBe('pickle')
  })
})

describe('symbolic links', () => {
  const [first, second] = [...folderOf(model, 400).keys()]

  /** A checkpoint whose file `name` is a link to `target`, where the file itself now is. */
  function linked(folder: string, name: string, target: string): string {
    const files = folderOf(model, 400, { 'config.json': '{"a":1}', 'notes.txt': 'hi' })
    write('.', new Map([[target, files.get(name)!]]))
    files.delete(name)
    const path = write(folder, files)
    symlinkSync(join(root, target), join(path, name))
    return path
  }

  it('may stay inside of the folder, and the folder may be one itself', async () => {
    const folder = linked('model', first!, 'model/data/first.safetensors')
    expect((await openFolder(folder)).tensors.size).toBe(2)
    symlinkSync(folder, join(root, 'alias'))
    expect((await openFolder(join(root, 'alias'))).tensors.size).toBe(2)
  })

  it.each(['model-00001-of-00002.safetensors', 'config.json', 'notes.txt', INDEX])(
    'must not leave the folder: %s',
    async (name) => {
      const error = await failure(() => openFolder(linked('model', name, 'elsewhere/secret')))
      expect(error).toMatchObject({ code: 'path-escape', file: name })
      expect(error.problems[0]?.received).toBe(join(root, 'elsewhere/secret'))
    },
  )

  it('must not lead to a neighbour whose name only begins alike', async () => {
    expect((await failure(() => openFolder(linked('model', first!, 'model-2/x')))).code).toBe('path-escape')
  })

  it('are all listed', async () => {
    const folder = linked('model', first!, 'elsewhere/1')
    symlinkSync('/etc/hostname', join(folder, 'hostname.txt'))
    const error = await failure(() => openFolder(folder))
    expect(error.problems.map(({ file }) => file)).toEqual(['hostname.txt', first])
  })

  it('that lead nowhere are missing files; folders behind links are not entered', async () => {
    const folder = write('model', folderOf(model, 400))
    rmSync(join(folder, second!))
    symlinkSync(join(root, 'nowhere'), join(folder, second!))
    symlinkSync(folder, join(folder, 'loop'))
    expect(await failure(() => openFolder(folder))).toMatchObject({ code: 'missing-shard', file: second })
  })

  it('work in the layout of the Hugging Face cache', async () => {
    const cache = 'models--org--name'
    const snapshot = join(root, cache, 'snapshots', 'c0ffee')
    mkdirSync(join(snapshot, 'sub'), { recursive: true })
    const files = folderOf(model, 400, { 'config.json': '{"a":1}', 'sub/notes.txt': 'hi' })
    for (const [i, [name, data]] of [...files].entries()) {
      write(cache, new Map([[`blobs/${i}`, data]]))
      symlinkSync(join(name.includes('/') ? '../../../blobs' : '../../blobs', `${i}`), join(snapshot, name))
    }
    const checkpoint = await openPath(snapshot)
    expect([checkpoint.config, checkpoint.tensors.size, [...checkpoint.files.keys()]]).toEqual([
      { a: 1 },
      2,
      ['sub/notes.txt'],
    ])
    symlinkSync('../../refs/main', join(snapshot, 'out.txt'))
    write(cache, new Map([['refs/main', 'c0ffee']]))
    expect((await failure(() => openPath(snapshot))).code).toBe('path-escape')
  })
})
