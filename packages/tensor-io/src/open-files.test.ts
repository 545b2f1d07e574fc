import { type ByteSource, DTYPE_BITS, type DType, isFloat, reads } from '@polygraft/tensor'
import { openFiles, readText } from '@polygraft/tensor-io'
import { describe, expect, it } from 'vitest'
import { blobs, counting, failure, fileOf, folderOf, rawFile } from '../test/support.js'

const INDEX = 'model.safetensors.index.json'
const f32 = (...shape: number[]) => ({ dtype: 'F32' as DType, shape })
const model = [
  ['a', f32(2, 3)],
  ['b', f32(40)],
  ['c', f32(2048)],
  ['none', f32(0)],
] as const
const idOf = ({ sources }: { sources: ReadonlyMap<string, unknown> }) => [...sources.keys()][0]!
const open = (files: ReadonlyMap<string, Uint8Array<ArrayBuffer>>) => openFiles(blobs(files), 'memory')
const indexOf = (map: unknown) => JSON.stringify({ metadata: {}, weight_map: map })

/** A folder whose index says `map`, beside two good shards. */
function indexed(map: unknown) {
  const files = new Map([
    [
      'x.safetensors',
      fileOf([
        ['a', f32(1)],
        ['b', f32(1)],
      ]),
    ],
    ['y.safetensors', fileOf([['c', f32(1)]])],
  ])
  return files.set(INDEX, new TextEncoder().encode(indexOf(map)))
}
const GOOD = { a: 'x.safetensors', b: 'x.safetensors', c: 'y.safetensors' }

describe('openFiles', () => {
  it('opens one file, its config and what comes with it', async () => {
    const extra = {
      'config.json': '{"model_type":"llama","unknown":[1]}',
      'tokenizer.json': '{}',
      'sub/notes.txt': 'hi',
      'pytorch_model.bin': '',
      'pytorch_model.bin.index.json': '{}',
      'original/consolidated.00.pth': '',
      'sub/other.safetensors': '',
      'model.gguf': '',
    }
    const checkpoint = await open(folderOf(model, 1e9, extra))
    expect(checkpoint.config).toEqual({ model_type: 'llama', unknown: [1] })
    expect([...checkpoint.files.keys()].sort()).toEqual(['sub/notes.txt', 'tokenizer.json'])
    expect(await readText(checkpoint.files.get('sub/notes.txt')!)).toBe('hi')
    expect(checkpoint.provenance).toEqual({ recipe: [], skipped: [] })
    expect(checkpoint.tensors.get('a')).toMatchObject({ dtype: 'F32', shape: [2, 3] })
    const [source] = [...checkpoint.sources.values()]
    expect(source).toMatchObject({ id: idOf(checkpoint), location: 'memory' })
    for (const { expr } of checkpoint.tensors.values())
      for (const read of reads(expr)) expect(source!.tensors.has(read.tensor)).toBe(true)
  })

  it('opens shards by their index, in subfolders too', async () => {
    const files = new Map([...folderOf(model, 200)].map(([name, bytes]) => [name, bytes]))
    const checkpoint = await open(files)
    expect([...checkpoint.tensors.keys()].sort()).toEqual(['a', 'b', 'c', 'none'])
    expect(checkpoint.config).toEqual({})
    const nested = indexed({ ...GOOD, c: 'deep/er/y.safetensors' })
    nested.set('deep/er/y.safetensors', nested.get('y.safetensors')!)
    nested.delete('y.safetensors')
    expect((await open(nested)).tensors.size).toBe(3)
  })

  it('opens the only safetensors file whatever its name', async () => {
    const checkpoint = await openFiles(blobs(new Map([['adapter.safetensors', fileOf(model)]])), 'memory')
    expect([...checkpoint.sources.values()][0]?.tensors.get('a')?.file).toBe('adapter.safetensors')
  })

  it('keeps every dtype', async () => {
    const all = (Object.keys(DTYPE_BITS) as DType[]).map((dtype) => [dtype, { dtype, shape: [8] }] as const)
    const { tensors } = await open(folderOf(all))
    for (const [name, { dtype }] of tensors) expect(dtype).toBe(name)
    expect([...tensors.values()].filter(({ dtype }) => isFloat(dtype))).toHaveLength(4)
  })

  it.each([
    ['a parent folder', { ...GOOD, c: '../y.safetensors' }, 'path-escape'],
    ['a parent folder further down', { ...GOOD, c: 'sub/../../y.safetensors' }, 'path-escape'],
    ['a parent folder and back', { ...GOOD, c: 'sub/../y.safetensors' }, 'path-escape'],
    ['an absolute path', { ...GOOD, c: '/etc/y.safetensors' }, 'path-escape'],
    ['a drive', { ...GOOD, c: 'C:/y.safetensors' }, 'path-escape'],
    ['a backslash', { ...GOOD, c: '..\\y.safetensors' }, 'path-escape'],
    ['a NUL', { ...GOOD, c: 'y.safetensors\0.safetensors' }, 'path-escape'],
    ['an empty name', { ...GOOD, c: '' }, 'path-escape'],
    ['a dot', { ...GOOD, c: './y.safetensors' }, 'path-escape'],
    ['a file that is not safetensors', { ...GOOD, c: 'pytorch_model.bin' }, 'bad-index'],
    ['a number', { ...GOOD, c: 1 }, 'bad-index'],
    ['no weight_map', undefined, 'bad-index'],
    ['an empty weight_map', {}, 'bad-index'],
    ['an array', [], 'bad-index'],
    ['a missing shard', { ...GOOD, c: 'z.safetensors' }, 'missing-shard'],
    ['a tensor that its shard lacks', { ...GOOD, d: 'y.safetensors' }, 'missing-tensor'],
    ['not all tensors', { a: 'x.safetensors', c: 'y.safetensors' }, 'unindexed-tensor'],
    ['another shard', { ...GOOD, b: 'y.safetensors' }, 'unindexed-tensor'],
  ])('refuses an index with %s', async (_, map, code) => {
    expect((await failure(() => open(indexed(map)))).code).toBe(code)
  })

  it('refuses a tensor in two shards', async () => {
    const files = indexed(GOOD).set(
      'y.safetensors',
      fileOf([
        ['c', f32(1)],
        ['a', f32(1)],
      ]),
    )
    expect(await failure(() => open(files))).toMatchObject({ code: 'duplicate-tensor', tensor: 'a' })
  })

  it('lists all missing shards, and a wrong file once however many tensors it would hold', async () => {
    const missing = await failure(() => open(indexed({ a: 'p.safetensors', b: 'q.safetensors' })))
    expect(missing.problems.map(({ file }) => file)).toEqual(['p.safetensors', 'q.safetensors'])
    const outside = await failure(() => open(indexed({ a: '../p', b: '../p', c: '../q' })))
    expect(outside.problems.map(({ tensor }) => tensor)).toEqual(['a', 'c'])
  })

  it('refuses duplicate keys in index and config', async () => {
    const twice = '{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}'
    const files = indexed(GOOD).set(INDEX, new TextEncoder().encode(twice))
    expect(await failure(() => open(files))).toMatchObject({ code: 'bad-json', file: INDEX })
    const config = folderOf(model, 1e9, { 'config.json': '{"a":1,"a":2}' })
    expect(await failure(() => open(config))).toMatchObject({ code: 'bad-json', file: 'config.json' })
    const array = folderOf(model, 1e9, { 'config.json': '[]' })
    expect((await failure(() => open(array))).code).toBe('bad-json')
  })

  it.each([
    ['nothing', {}, 'no-weights'],
    ['weights in a subfolder only', { 'sub/model.safetensors': '' }, 'no-weights'],
    ['pickled weights', { 'pytorch_model.bin': '', 'config.json': '{}' }, 'pickle'],
    [
      'pickled shards',
      { 'pytorch_model-00001-of-00002.bin': '', 'pytorch_model.bin.index.json': '{}' },
      'pickle',
    ],
    ['pickled weights of other names', { 'consolidated.00.pth': '', 'model.pt': '' }, 'pickle'],
    ['two files and no index', { 'a.safetensors': '', 'b.safetensors': '' }, 'ambiguous-weights'],
    [
      'an index and an unrelated model.safetensors',
      { [INDEX]: indexOf({ a: 'x.safetensors' }), 'x.safetensors': '', 'model.safetensors': '' },
      'ambiguous-weights',
    ],
  ])('refuses a folder with %s', async (_, texts, code) => {
    const files = new Map(Object.entries(texts).map(([name, text]) => [name, new TextEncoder().encode(text)]))
    const error = await failure(() => open(files))
    expect(error.code).toBe(code)
    if (code === 'pickle') expect(error.message).toContain('save_pretrained')
  })

  it('names the shard that is broken', async () => {
    const files = indexed(GOOD).set('y.safetensors', rawFile('{}', 3))
    expect(await failure(() => open(files))).toMatchObject({ code: 'trailing-bytes', file: 'y.safetensors' })
  })

  it('reads provenance back, and minds a manifest of another tool as little as its absence', async () => {
    const opened = async (manifest: unknown) =>
      (await open(folderOf(model, 1e9, { 'polygraft.json': JSON.stringify(manifest) }))).provenance
    const mine = {
      recipe: [{ op: 'upcycle', experts: 2 }],
      experts: ['original', 'el'],
      skipped: [{ tensor: 'x', reason: 'a buffer' }],
    }
    expect(await opened({ polygraft: { version: '1.0.0' }, ...mine, inputs: [] })).toEqual(mine)
    expect(await opened({ recipe: 'soup' })).toEqual({ recipe: [], skipped: [] })
    for (const wrong of [{ recipe: 'soup' }, { experts: [1] }, { skipped: [{}] }])
      expect((await failure(() => opened({ polygraft: {}, ...wrong }))).code).toBe('bad-manifest')
  })
})

describe('source ids', () => {
  it('do not depend on the layout over files', async () => {
    const single = await open(folderOf(model))
    const sharded = await open(folderOf(model, 200))
    expect(sharded.sources.values().next().value?.shards.size).toBeGreaterThan(1)
    expect(idOf(single)).toMatch(/^sampled-sha256:[0-9a-f]{64}$/)
    expect(idOf(sharded)).toBe(idOf(single))
  })

  it('depend on names, dtypes, shapes and sampled data', async () => {
    const variants = [
      model,
      [['A', f32(2, 3)], ...model.slice(1)],
      [['a', f32(3, 2)], ...model.slice(1)],
      [['a', { dtype: 'I32', shape: [2, 3] }], ...model.slice(1)],
    ] as (typeof model)[]
    const ids = await Promise.all(variants.map(async (tensors) => idOf(await open(folderOf(tensors)))))
    expect(new Set(ids).size).toBe(variants.length)
  })

  it('differ for tensors that differ outside of the sample, while both are in use', async () => {
    const files = folderOf([['large', f32(100_000)]])
    const changed = new Map([...files].map(([name, bytes]) => [name, bytes.slice()]))
    const bytes = changed.get('model.safetensors')!
    bytes[bytes.length - 1]! ^= 1
    const all = await Promise.all([open(files), open(changed), open(files), open(changed)])
    const [a, b, c, d] = all.map(idOf)
    // Which of them comes first is open.
    const [first, second] = [a, b].sort()
    expect(second).toBe(`${first}#2`)
    expect([c, d]).toEqual([a, b])
  })

  it('read little: no more than blocks of 1 KiB and the gaps between close ones', async () => {
    const large = Array.from({ length: 40 }, (_, i) => [`t${i}`, f32(50_000)] as const)
    const log = { reads: 0, bytes: 0 }
    const source = new Blob([fileOf(large)])
    await openFiles(new Map<string, ByteSource>([['model.safetensors', counting(source, log)]]), 'memory')
    expect(log).toEqual({ reads: 1 + 40, bytes: 256 * 1024 + 40 * 1024 })
    const small = Array.from({ length: 40 }, (_, i) => [`t${i}`, f32(500)] as const)
    const few = { reads: 0, bytes: 0 }
    const close = new Blob([fileOf(small)])
    await openFiles(new Map<string, ByteSource>([['model.safetensors', counting(close, few)]]), 'memory')
    expect(few.reads).toBe(2)
  })

  it('name the location where nothing is sampled', async () => {
    const opened = (location: string) => openFiles(blobs(folderOf(model)), location, { sample: false })
    const [a, b] = [await opened('there'), await opened('elsewhere')]
    expect(idOf(a)).toMatch(/^header-sha256:[0-9a-f]{64}$/)
    expect(idOf(b)).not.toBe(idOf(a))
    expect(idOf(await opened('there'))).toBe(`${idOf(a)}#2`)
  })
})

describe('readText', () => {
  it('refuses what is not UTF-8', async () => {
    expect(await readText(new Blob(['é😀']))).toBe('é😀')
    const error = await failure(() => readText(new Blob([Uint8Array.of(0x61, 0xff)]), 'vocab.json'))
    expect(error).toMatchObject({ code: 'bad-utf8', file: 'vocab.json' })
  })
})
