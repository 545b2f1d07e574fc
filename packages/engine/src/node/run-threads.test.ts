import { existsSync, readdirSync, readlinkSync, rmSync, statSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { planCheckpoint, writeCheckpoint, writeShards } from '@polygraft/engine'
import type { Checkpoint } from '@polygraft/tensor'
import { createFolder, fileSource, resumeFolder } from '@polygraft/tensor-io/node'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { bf16, checkpointOf, sourceOf } from '../../test/memory.js'

const ELEMENTS = 200_000
const OPTIONS = { version: '0', threads: 2, maxShardBytes: 500_000 }

let dir = ''
let checkpoint: Checkpoint
const unhandled: unknown[] = []
const remember = (reason: unknown) => unhandled.push(reason)

beforeEach(async () => {
  process.on('unhandledRejection', remember)
  dir = await mkdtemp(join(tmpdir(), 'polygraft-engine-'))
  const patterns = Uint16Array.from({ length: ELEMENTS }, (_, i) => 0x3f80 + (i % 100))
  const source = sourceOf('s', Object.fromEntries(['a', 'b', 'c', 'd'].map((name) => [name, bf16(patterns)])))
  const path = join(dir, 'model.safetensors')
  await writeFile(path, new Uint8Array(await source.shards.get('model.safetensors')!.arrayBuffer()))
  checkpoint = checkpointOf({ ...source, shards: new Map([['model.safetensors', fileSource(path)]]) })
})
afterEach(async () => {
  process.off('unhandledRejection', remember)
  await rm(dir, { recursive: true })
  expect(unhandled.splice(0)).toEqual([])
  expect(threadsLeft()).toEqual([])
})

const threadsLeft = () => process.getActiveResourcesInfo().filter((resource) => resource === 'MessagePort')
/** Inputs and outputs that this process has open, where the system tells. */
function openFiles(): string[] {
  if (!existsSync('/proc/self/fd')) return []
  const paths = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`)
    } catch {
      return ''
    }
  })
  return paths.filter((path) => path.startsWith(dir))
}
const open = () => resumeFolder(join(dir, 'out'), { key: 'k' })

describe('runThreads', () => {
  it('ends, and leaves nothing, whenever it is told to stop', async () => {
    const started = performance.now()
    const first = await open()
    await writeCheckpoint(checkpoint, first, OPTIONS)
    const usualMs = performance.now() - started
    await first.discard()
    for (let round = 0; round < 8; round++) {
      const folder = await open()
      const cancel = new AbortController()
      const timer = setTimeout(() => cancel.abort(new Error('enough')), (usualMs * round) / 7)
      const work = writeCheckpoint(checkpoint, folder, { ...OPTIONS, signal: cancel.signal })
      const error = await work.catch((reason: Error) => reason.message)
      clearTimeout(timer)
      if (typeof error === 'string') expect(error).toBe('enough')
      const { finished, begun } = await folder.leave()
      expect(readdirSync(dir).length).toBe(finished + begun > 0 ? 2 : 1)
      await (await open()).discard()
      expect(readdirSync(dir)).toEqual(['model.safetensors'])
      expect(threadsLeft()).toEqual([])
    }
    expect(openFiles()).toEqual([])
  })

  it.each(['at the first shard', 'at the last one'])(
    'passes on what fails when a shard is noted, %s',
    async (when) => {
      const folder = await open()
      let calls = 0
      const write = async () => {
        calls++
        if (when === 'at the first shard' || calls === 4) throw new Error('no room for a note')
      }
      const work = writeCheckpoint(checkpoint, { ...folder, notes: { ...folder.notes, write } }, OPTIONS)
      await expect(work).rejects.toThrow('no room for a note')
      await folder.discard()
      expect(readdirSync(dir)).toEqual(['model.safetensors'])
    },
  )

  it.each([0, 2])('passes on what fails while progress is shown, %d threads', async (threads) => {
    const folder = await createFolder(join(dir, 'out'))
    const onProgress = () => {
      throw new Error('nobody listens')
    }
    const work = writeCheckpoint(checkpoint, folder, { ...OPTIONS, threads, onProgress })
    await expect(work).rejects.toThrow('nobody listens')
    await folder.discard()
  })

  it.each([0, 2])('says which input is gone, %d threads', async (threads) => {
    const folder = await createFolder(join(dir, 'out'))
    await rm(join(dir, 'model.safetensors'))
    const work = writeCheckpoint(checkpoint, folder, { ...OPTIONS, threads })
    await expect(work).rejects.toMatchObject({ code: 'missing-file', file: join(dir, 'model.safetensors') })
    await folder.discard()
    await writeFile(join(dir, 'model.safetensors'), '')
  })

  it('says when the output is gone', async () => {
    const folder = await createFolder(join(dir, 'out'))
    // At once: a removal that is still under way may end after the publishing, on a folder that has its new name by then.
    const onProgress = () => rmSync(folder.path, { recursive: true, force: true, maxRetries: 3 })
    const work = writeCheckpoint(checkpoint, folder, { ...OPTIONS, onProgress })
    await expect(work.then(() => folder.publish())).rejects.toMatchObject({ code: 'missing-file' })
    await folder.discard()
    expect(existsSync(join(dir, 'out'))).toBe(false)
  })

  it('writes a finished shard again that was changed while it waited', async () => {
    const first = await open()
    const manifest = await writeCheckpoint(checkpoint, first, OPTIONS)
    const [spoilt, ...intact] = manifest.shards.map(({ file }) => join(first.path, file))
    const made = intact.map((file) => statSync(file).mtimeMs)
    await first.leave()
    const bytes = await readFile(spoilt!)
    bytes[bytes.length - 3]! ^= 1
    await writeFile(spoilt!, bytes)
    const second = await open()
    expect(second.notes.earlier.size).toBe(manifest.shards.length)
    expect(await writeCheckpoint(checkpoint, second, OPTIONS)).toEqual(manifest)
    bytes[bytes.length - 3]! ^= 1
    expect(await readFile(spoilt!)).toEqual(bytes)
    expect(intact.map((file) => statSync(file).mtimeMs)).toEqual(made)
    await second.discard()
  })

  it('tells a thread that cannot work', async () => {
    const folder = await createFolder(join(dir, 'out'))
    const plan = planCheckpoint(checkpoint, OPTIONS)
    const groups = plan.work.groups.map((group) => ({ ...group, tileElements: 2 ** 50 }))
    const broken = { ...plan, work: { ...plan.work, groups } }
    await expect(writeShards(checkpoint, broken, folder, {})).rejects.toThrow()
    await folder.discard()
  })
})
