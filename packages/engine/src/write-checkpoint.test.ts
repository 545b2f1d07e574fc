import { createHash } from 'node:crypto'
import { mkdtemp, readdir, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  digestFile,
  fittingThreads,
  type Manifest,
  type Progress,
  planCheckpoint,
  writeCheckpoint,
} from '@polygraft/engine'
import { type Checkpoint, type Expr, ModelError, read, type Source, scale } from '@polygraft/tensor'
import { type OutputFolder, openFiles } from '@polygraft/tensor-io'
import { createFolder, fileSource } from '@polygraft/tensor-io/node'
import { afterAll, describe, expect, it } from 'vitest'
import { bf16, checkpointOf, f32, sourceOf } from '../test/memory.js'

const source = sourceOf('s', {
  a: bf16(
    Array.from({ length: 5000 }, (_, i) => 0x3f80 + (i % 100)),
    [50, 100],
  ),
  b: bf16(
    Array.from({ length: 5000 }, (_, i) => 0x3f80 + (i % 90)),
    [50, 100],
  ),
  n: { dtype: 'I64', shape: [2], bytes: new Uint8Array(16).fill(7) },
  empty: f32([], [0, 4]),
})

function memoryFolder(): OutputFolder & { files: Map<string, Uint8Array> } {
  const files = new Map<string, Uint8Array>()
  return {
    files,
    async createFile(name, size = 0) {
      const bytes = new Uint8Array(size)
      files.set(name, bytes)
      const nothing = async () => {}
      return { write: async (part, position) => bytes.set(part, position), flush: nothing, close: nothing }
    },
    async writeFile(name, data) {
      const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : data
      files.set(name, bytes instanceof Uint8Array ? bytes : new Uint8Array(await bytes.arrayBuffer()))
    },
    read: async (name) => new Blob([files.get(name) as Uint8Array<ArrayBuffer>]),
    publish: async () => {},
    discard: async () => files.clear(),
  }
}

const grafted: Expr = {
  op: 'graft',
  cpt: read('s', 'a'),
  base: read('s', 'a'),
  post: read('s', 'b'),
  lambda: 1,
}
const swallowed: Expr = {
  op: 'graft',
  cpt: scale(1e6, read('s', 'a')),
  base: read('s', 'a'),
  post: read('s', 'b'),
  lambda: 1,
}

function example(): Checkpoint {
  const checkpoint = checkpointOf(source)
  const tensors = new Map(checkpoint.tensors)
  tensors.set('grafted', { dtype: 'BF16', shape: [50, 100], expr: grafted })
  tensors.set('swallowed', { dtype: 'BF16', shape: [50, 100], expr: swallowed })
  return {
    ...checkpoint,
    tensors,
    provenance: { recipe: [{ op: 'test' }], experts: ['original'], skipped: [] },
  }
}

describe('writeCheckpoint', () => {
  it.each([1e9, 12_000])('writes what can be opened again, shards of %d bytes', async (maxShardBytes) => {
    const folder = memoryFolder()
    const checkpoint = example()
    const manifest = await writeCheckpoint(checkpoint, folder, { version: '0.0.0', maxShardBytes })
    const files = new Map(
      [...folder.files].map(([name, bytes]) => [name, new Blob([bytes as Uint8Array<ArrayBuffer>])]),
    )
    const reopened = await openFiles(files, 'memory')
    expect([...reopened.tensors.keys()].sort()).toEqual([...checkpoint.tensors.keys()].sort())
    expect(reopened.config).toEqual(checkpoint.config)
    expect(reopened.provenance).toEqual(checkpoint.provenance)
    expect(manifest.shards.length).toBe(maxShardBytes === 1e9 ? 1 : 4)
    for (const { file, bytes, sha256 } of manifest.shards) {
      expect(folder.files.get(file)!.length).toBe(bytes)
      expect(createHash('sha256').update(folder.files.get(file)!).digest('hex')).toBe(sha256)
    }
    expect(JSON.parse(new TextDecoder().decode(folder.files.get('polygraft.json')))).toEqual(manifest)
  })

  it('gives the same bytes whatever the memory budget and the kernels', async () => {
    const digests = async (options: object) =>
      (await writeCheckpoint(example(), memoryFolder(), { version: '0', ...options })).shards.map(
        (shard) => shard.sha256,
      )
    const usual = await digests({})
    expect(await digests({ memoryBytes: 145 * 2 ** 20 })).toEqual(usual)
    expect(await digests({ kernels: 'reference' })).toEqual(usual)
  })

  it('counts the elements that post-training changed and the dtype swallowed', async () => {
    const manifest: Manifest = await writeCheckpoint(example(), memoryFolder(), { version: '0' })
    const differ = Array.from({ length: 5000 }, (_, i) => i).filter((i) => i % 100 !== i % 90).length
    expect(manifest.delta).toEqual({
      changed: 2 * differ,
      swallowed: differ,
      swallowedFraction: 0.5,
      tensors: { swallowed: 1 },
    })
  })

  it('counts what is NaN or infinite by tensor: because an input is, or made by arithmetic', async () => {
    const odd = sourceOf('odd', {
      x: f32([1, Number.NaN, Number.POSITIVE_INFINITY, 3e38]),
      y: f32([1, 1, 1, 1]),
    })
    const expr: Expr = { op: 'add', args: [read('odd', 'x'), read('odd', 'x')] }
    const [twice, plain] = [
      { dtype: 'F32', shape: [4], expr },
      { dtype: 'F32', shape: [4], expr: scale(2, read('odd', 'y')) },
    ] as const
    const tensors = new Map([...checkpointOf(odd).tensors, ['twice', twice], ['plain', plain]] as const)
    const { nonFinite } = await writeCheckpoint({ ...checkpointOf(odd), tensors }, memoryFolder(), {
      version: '0',
    })
    const found = { fromInputs: 2, made: 1 }
    expect(nonFinite).toEqual({ ...found, tensors: { twice: found } })
  })

  it('reports progress to the last byte, and stops when told to', async () => {
    const seen: Progress[] = []
    await writeCheckpoint(example(), memoryFolder(), { version: '0', onProgress: (p) => seen.push(p) })
    const done = seen.map((p) => p.bytesDone)
    expect(done).toEqual(done.toSorted((x, y) => x - y))
    expect(done.at(-1)).toBe(seen[0]!.bytesTotal)
    const signal = AbortSignal.abort(new Error('enough'))
    await expect(writeCheckpoint(example(), memoryFolder(), { version: '0', signal })).rejects.toThrow(
      'enough',
    )
  })

  it('says which file ended early', async () => {
    const shards = new Map([['model.safetensors', source.shards.get('model.safetensors')!.slice(0, 15_000)]])
    const truncated: Source = { ...source, shards }
    const checkpoint = { ...example(), sources: new Map([['s', truncated]]) }
    const error = await writeCheckpoint(checkpoint, memoryFolder(), { version: '0' }).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(ModelError)
    expect((error as ModelError).code).toBe('truncated')
    expect((error as ModelError).file).toBe('model.safetensors')
  })
})

describe('planCheckpoint', () => {
  it('knows sizes without reading', () => {
    const plan = planCheckpoint(example(), { maxShardBytes: 12_000 })
    expect(plan.parameters).toBe(4 * 5000 + 2)
    expect(plan.bytesRead).toBe(2 * 10_000 + 16 + 2 * 20_000)
    // In one shard, the two grafts that share a and b read them once.
    expect(planCheckpoint(example()).bytesRead).toBe(2 * 10_000 + 16 + 20_000)
    expect(plan.bytesWritten).toBe(plan.shards.reduce((sum, shard) => sum + shard.size, 0))
    expect(plan.shards.map((shard) => [...shard.tensors.keys()].length).reduce((x, y) => x + y)).toBe(6)
  })

  it('refuses a budget that holds no tile, and knows how many threads one holds', () => {
    expect(() => planCheckpoint(example(), { memoryBytes: 2 ** 20 })).toThrow('memory-budget')
    expect(fittingThreads(example(), 2)).toBe(2)
    const most = fittingThreads(example(), 1000)
    expect(planCheckpoint(example(), { threads: most }).peakBytes).toBeLessThanOrEqual(512 * 2 ** 20)
    expect(planCheckpoint(example(), { threads: most, memoryBytes: 1e9 }).peakBytes).toBeGreaterThan(
      450 * 2 ** 20,
    )
    expect(fittingThreads(example(), 4, 2 ** 20)).toBe(0)
  })

  it('lists the problems of all tensors', () => {
    const checkpoint = example()
    const tensors = new Map(checkpoint.tensors)
    tensors.set('x', { dtype: 'BF16', shape: [1], expr: read('s', 'none') })
    tensors.set('y', { dtype: 'BF16', shape: [1], expr: read('s', 'a') })
    const error = (() => {
      try {
        planCheckpoint({ ...checkpoint, tensors })
      } catch (e) {
        return e as ModelError
      }
    })()
    expect(error?.problems.map((p) => [p.tensor, p.code])).toEqual([
      ['x', 'missing-tensor'],
      ['y', 'shape-mismatch'],
    ])
  })
})

describe('threads', () => {
  const folders: string[] = []
  afterAll(() => Promise.all(folders.map((path) => rm(path, { recursive: true, force: true }))))

  async function onDisk(): Promise<{ checkpoint: Checkpoint; dir: string }> {
    const dir = await mkdtemp(join(tmpdir(), 'polygraft-engine-'))
    folders.push(dir)
    await writeFile(
      join(dir, 'model.safetensors'),
      new Uint8Array(await source.shards.get('model.safetensors')!.arrayBuffer()),
    )
    const shards = new Map([['model.safetensors', fileSource(join(dir, 'model.safetensors'))]])
    return { dir, checkpoint: { ...example(), sources: new Map([['s', { ...source, shards }]]) } }
  }

  it.each([1, 3])('%d of them write the bytes that none write', async (threads) => {
    const { checkpoint, dir } = await onDisk()
    const expected = await writeCheckpoint(example(), memoryFolder(), { version: '0', maxShardBytes: 12_000 })
    const folder = await createFolder(join(dir, 'out'))
    const seen: number[] = []
    const onProgress = ({ bytesDone }: Progress) => void seen.push(bytesDone)
    const manifest = await writeCheckpoint(checkpoint, folder, {
      version: '0',
      maxShardBytes: 12_000,
      threads,
      onProgress,
    })
    await folder.publish()
    expect(manifest).toEqual({ ...expected, inputs: manifest.inputs })
    expect(seen.at(-1)).toBe(4 * 10_000 + 16)
    for (const { file, sha256 } of manifest.shards)
      expect(await digestFile(fileSource(join(dir, 'out', file)))).toBe(sha256)
  })

  it('stop when told to, and when one of them fails', async () => {
    const { checkpoint, dir } = await onDisk()
    const signal = AbortSignal.abort(new Error('enough'))
    const folder = await createFolder(join(dir, 'out'))
    await expect(writeCheckpoint(checkpoint, folder, { version: '0', threads: 2, signal })).rejects.toThrow(
      'enough',
    )
    await folder.discard()
    await truncate(join(dir, 'model.safetensors'), 15_000)
    const again = await createFolder(join(dir, 'out'))
    const error = await writeCheckpoint(checkpoint, again, { version: '0', threads: 2 }).catch(
      (e: unknown) => e,
    )
    await again.discard()
    expect(error).toBeInstanceOf(ModelError)
    expect((error as ModelError).code).toBe('truncated')
    expect(await readdir(dir)).toEqual(['model.safetensors'])
  })
})
