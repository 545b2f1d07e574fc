import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ties, trimTargets } from '@polygraft/delta'
import { evaluate, measureThresholds, writeCheckpoint } from '@polygraft/engine'
import { decode } from '@polygraft/kernels'
import { type Checkpoint, mergeSources, pipe, type Tensor } from '@polygraft/tensor'
import { createFolder, openPath } from '@polygraft/tensor-io/node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { writeData } from './data.js'
import { benchModels } from './model.js'

/* Whole merges: what @polygraft/delta describes, measured and evaluated by @polygraft/engine from files. */

const ROLES = ['base', 'instruct', 'cpt'] as const
let dir: string
let base: Checkpoint
let models: Checkpoint[]
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'merges-'))
  writeData(dir, benchModels(2 * 2 ** 20, 1))
  const [first, ...others] = await Promise.all(ROLES.map((role) => openPath(join(dir, role))))
  base = first!
  models = others
})
afterAll(() => rmSync(dir, { recursive: true }))

const f32 = Math.fround
const valuesOf = async (tensor: Tensor, sources: Checkpoint['sources']) => {
  const values = new Float32Array(tensor.shape.reduce((a, b) => a * b, 1))
  decode(tensor.dtype as 'BF16', await evaluate(tensor, sources), values)
  return values
}

/** The output's bytes when written with so many threads, and tiles that fit in so much memory. */
async function written(merged: Checkpoint, threads: number, memoryBytes: number): Promise<Buffer> {
  const out = join(dir, `out-${threads}-${memoryBytes}`)
  const folder = await createFolder(out, { inputs: [] })
  await writeCheckpoint(merged, folder, { version: '0.0.0', threads, memoryBytes })
  await folder.publish()
  return readFileSync(join(out, 'model.safetensors'))
}

async function expectSameBytes(merged: Checkpoint): Promise<void> {
  const alone = await written(merged, 0, 512 * 2 ** 20)
  expect(Buffer.compare(alone, await written(merged, 0, 100 * 2 ** 20))).toBe(0)
  expect(Buffer.compare(alone, await written(merged, 2, 512 * 2 ** 20))).toBe(0)
}

describe('ties', () => {
  it('is trimming by sorting, election and mean, for every tensor', async () => {
    const options = { models, density: 0.2, lambda: 0.7 }
    const sources = mergeSources(base, ...models)
    const merged = pipe(
      base,
      ties({ ...options, thresholds: await measureThresholds(trimTargets(base, options), sources) }),
    )
    for (const name of [...base.tensors.keys()].slice(0, 4)) {
      const [b, ...others] = await Promise.all(
        [base, ...models].map(({ tensors, sources }) => valuesOf(tensors.get(name)!, sources)),
      )
      const trimmed = others.map((values) =>
        trimBySorting(
          values.map((x, i) => x - b![i]!),
          0.2,
        ),
      )
      const expected = b!.map((x, i) => f32(x + f32(f32(0.7) * elected(trimmed.map((tau) => tau[i]!)))))
      const wide = { ...merged.tensors.get(name)!, dtype: 'F32' as const }
      expect(await valuesOf(wide, merged.sources)).toEqual(expected)
    }
  })

  it('gives the same bytes for any threads and tiles', async () => {
    const options = { models, density: 0.3 }
    const sources = mergeSources(base, ...models)
    const thresholds = await measureThresholds(trimTargets(base, options), sources, { threads: 2 })
    expect(thresholds).toEqual(
      await measureThresholds(trimTargets(base, options), sources, { tileElements: 4096 }),
    )
    await expectSameBytes(pipe(base, ties({ ...options, thresholds })))
  })
})

function trimBySorting(tau: Float32Array, density: number): Float32Array {
  const order = [...tau.keys()].sort((i, j) => Math.abs(tau[j]!) - Math.abs(tau[i]!) || i - j)
  const kept = new Float32Array(tau.length)
  for (const i of order.slice(0, Math.floor(density * tau.length))) kept[i] = tau[i]!
  return kept
}

function elected(values: readonly number[]): number {
  const sign = Math.sign(values.reduce((sum, x) => f32(sum + x)))
  const agreeing = values.filter((x) => Math.sign(x) === sign)
  return sign === 0 ? 0 : f32(agreeing.reduce((sum, x) => f32(sum + x)) / agreeing.length)
}
