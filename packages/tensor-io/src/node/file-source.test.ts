import { mkdtempSync, rmSync, truncateSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileSource, freeBytes } from '@polygraft/tensor-io/node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { failure, pattern } from '../../test/support.js'

let dir: string
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'tensor-io-'))
})
afterAll(() => rmSync(dir, { recursive: true }))

function file(name: string, bytes = pattern(10_000)): string {
  writeFileSync(join(dir, name), bytes)
  return join(dir, name)
}

describe('fileSource', () => {
  it('reads like a Blob', async () => {
    const path = file('whole')
    const source = fileSource(path)
    const blob = new Blob([pattern(10_000) as Uint8Array<ArrayBuffer>])
    expect(source).toMatchObject({ path, size: 10_000 })
    for (const [begin, end] of [
      [0, 10_000],
      [5, 9],
      [9_000, 20_000],
      [7, 7],
      [20_000, 30_000],
    ] as const) {
      const [a, b] = [source.slice(begin, end), blob.slice(begin, end)]
      expect(a.size).toBe(b.size)
      expect(new Uint8Array(await a.arrayBuffer())).toEqual(new Uint8Array(await b.arrayBuffer()))
      const [c, d] = [a.slice(2, 4), b.slice(2, 4)]
      expect(new Uint8Array(await c.arrayBuffer())).toEqual(new Uint8Array(await d.arrayBuffer()))
    }
    expect(source.slice(1, 2).path).toBeUndefined()
  })

  it('reads many parts at once', async () => {
    const source = fileSource(file('many'))
    const parts = Array.from({ length: 500 }, (_, i) => source.slice(i, i + 1).arrayBuffer())
    expect((await Promise.all(parts)).map((part) => new Uint8Array(part)[0])).toEqual([...pattern(500)])
  })

  it('refuses what is not there, or no file', async () => {
    expect((await failure(() => fileSource(join(dir, 'none')))).code).toBe('missing-file')
    expect((await failure(() => fileSource(dir))).code).toBe('io')
  })

  it('notices that the file is not the same any more', async () => {
    const cut = fileSource(file('cut'))
    truncateSync(cut.path, 5000)
    expect((await failure(() => cut.slice(0, 10).arrayBuffer())).code).toBe('changed')
    const touched = fileSource(file('touched'))
    utimesSync(touched.path, 1, 1)
    const errors = [0, 1, 2].map((i) => failure(() => touched.slice(i, 10).arrayBuffer()))
    for (const { code } of await Promise.all(errors)) expect(code).toBe('changed')
    const gone = fileSource(file('gone'))
    unlinkSync(gone.path)
    expect((await failure(() => gone.arrayBuffer())).code).toBe('missing-file')
  })
})

describe('freeBytes', () => {
  it('counts where a folder is or will be', async () => {
    expect(await freeBytes(dir)).toBeGreaterThan(0)
    expect(await freeBytes(join(dir, 'not', 'yet'))).toBeGreaterThan(0)
  })
})
