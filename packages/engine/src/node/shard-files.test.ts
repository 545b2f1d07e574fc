import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Manifest, type Progress, writeCheckpoint } from '@polygraft/engine'
import type { Checkpoint } from '@polygraft/tensor'
import { fileSource, resumeFolder } from '@polygraft/tensor-io/node'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { bf16, checkpointOf, sourceOf } from '../../test/memory.js'

const ELEMENTS = 2 ** 20
const NAMES = Array.from({ length: 16 }, (_, i) => `t${i}`)
const FILE = 'model.safetensors'

let dir = ''
let checkpoint: Checkpoint
let expected: Buffer
let manifest: Manifest

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'polygraft-engine-'))
  const patterns = Uint16Array.from({ length: ELEMENTS }, (_, i) => 0x3f80 + (i % 100))
  const other = patterns.map((word, i) => (i % 3 ? word : word + 1))
  const [plain, tuned] = [bf16(patterns), bf16(other)]
  const source = sourceOf('s', Object.fromEntries(NAMES.map((name, i) => [name, i % 2 ? tuned : plain])))
  const path = join(dir, 'input')
  await writeFile(path, new Uint8Array(await source.shards.get(FILE)!.arrayBuffer()))
  const stored = checkpointOf({ ...source, shards: new Map([[FILE, fileSource(path)]]) })
  const read = (tensor: string) => ({ op: 'read', source: 's', tensor }) as const
  const tensors = NAMES.map((name, i) => {
    // Of no two the same, so that each is a task of its own.
    const post = read(NAMES[(i + 1) % NAMES.length]!)
    const expr = { op: 'graft', cpt: read(name), base: read(name), post, lambda: 0.5 } as const
    return [name, { dtype: 'BF16', shape: [ELEMENTS], expr }] as const
  })
  checkpoint = { ...stored, tensors: new Map(tensors) }
  const folder = await begin('whole')
  manifest = await write(folder, 0)
  await folder.publish()
  expected = readFileSync(join(dir, 'whole', FILE))
})
afterEach(() => rm(dir, { recursive: true }))

const begin = (name: string) => resumeFolder(join(dir, name), { key: 'k' })

function write(
  folder: Awaited<ReturnType<typeof begin>>,
  threads: number,
  onProgress: (progress: Progress) => void = () => {},
  signal?: AbortSignal,
): Promise<Manifest> {
  const options = { version: '0', threads, onProgress, ...(signal ? { signal } : {}) }
  return writeCheckpoint(checkpoint, folder, options)
}

/** Leaves a shard that is begun, and says where its journal is. */
async function interrupted(): Promise<string> {
  const folder = await begin('out')
  const journal = join(folder.path, '..', 'journal', FILE)
  const cancel = new AbortController()
  const stop = () => existsSync(journal) && cancel.abort(new Error('enough'))
  await expect(write(folder, 0, stop, cancel.signal)).rejects.toThrow('enough')
  expect(await folder.leave()).toEqual({ finished: 0, begun: 1 })
  return journal
}

async function spoil(path: string, position: number): Promise<void> {
  const file = await open(path, 'r+')
  await file.write(Uint8Array.of(0xff, 0xff), 0, 2, position)
  await file.close()
}

describe('a shard that an earlier run began', () => {
  it.each([
    ['as it was', 0, undefined],
    ['as it was', 2, undefined],
    ['spoilt at the beginning', 0, 100_000],
    ['spoilt before the last line', 2, 9 * 2 ** 20],
  ])('ends in the same bytes and counts: %s, %d threads', async (_, threads, spoiltAt) => {
    const journal = await interrupted()
    const last = JSON.parse(readFileSync(journal, 'utf8').trimEnd().split('\n').at(-1)!)
    const folder = await begin('out')
    if (spoiltAt !== undefined) await spoil(join(folder.path, FILE), spoiltAt)
    let first: Progress | undefined
    const written = await write(folder, threads, (progress) => {
      first ??= progress
    })
    await folder.publish()
    expect(readFileSync(join(dir, 'out', FILE)).equals(expected)).toBe(true)
    expect(written).toEqual(manifest)
    // But for the task that the line ends in.
    if (spoiltAt === undefined) expect(first!.bytesDone).toBeGreaterThan(last.until - 2 * 2 * ELEMENTS)
  })
})
