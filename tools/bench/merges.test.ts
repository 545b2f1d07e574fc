import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { dareTies, measureMerge, type TiesOptions, ties, tiesTargets } from '@polygraft/delta'
import { evaluate, type MeasureOptions, measureTargets, writeCheckpoint } from '@polygraft/engine'
import { decode, randomMask } from '@polygraft/kernels'
import { type Checkpoint, mergeSources, pipe, type Tensor } from '@polygraft/tensor'
import { createFolder, openPath } from '@polygraft/tensor-io/node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { writeData } from './data.js'
import { benchModels } from './model.js'

/* Whole merges: what @polygraft/delta describes, measured and evaluated by @polygraft/engine from files. */

const ROLES = ['base', 'instruct', 'cpt'] as const
let dir: string
let outputs = 0
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

const measured = (options: TiesOptions, how: MeasureOptions = {}) =>
  measureMerge(
    (measured) => tiesTargets(base, { ...options, measured }),
    (targets) => measureTargets(targets, mergeSources(base, ...models), how),
  )

/** The output's bytes when written with so many threads. */
async function written(merged: Checkpoint, threads: number): Promise<Buffer> {
  const out = join(dir, `out-${outputs++}`)
  const folder = await createFolder(out, { inputs: [] })
  await writeCheckpoint(merged, folder, { version: '0.0.0', threads })
  await folder.publish()
  return readFileSync(join(out, 'model.safetensors'))
}

async function expectSameBytes(merged: Checkpoint): Promise<void> {
  const alone = await written(merged, 0)
  expect(Buffer.compare(alone, await written(merged, 2))).toBe(0)
  for (const tensor of [...merged.tensors.values()].filter(({ shape }) => shape.length === 2).slice(0, 2)) {
    const whole = await evaluate(tensor, merged.sources)
    const total = tensor.shape.reduce((a, b) => a * b, 1)
    for (const [begin, end] of [
      [1, 100],
      [total / 2 - 7, total - 1],
    ] as const) {
      const piece = await evaluate(tensor, merged.sources, { begin, end, kernels: 'reference' })
      expect(Buffer.compare(piece, whole.subarray(begin * 2, end * 2))).toBe(0)
    }
    expect(alone.includes(Buffer.from(whole))).toBe(true)
  }
}

describe('ties', () => {
  it('is trimming by sorting, election and mean, for every tensor', async () => {
    const options = { models: models.map((model) => ({ model, density: 0.2 })), lambda: 0.7 }
    const merged = pipe(base, ties({ ...options, measured: await measured(options) }))
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

  it('gives the same bytes for any threads, tiles and kernels', async () => {
    const options = { models: models.map((model) => ({ model, density: 0.3 })) }
    const found = await measured(options, { threads: 2 })
    expect(found).toEqual(await measured(options, { tileElements: 4096 }))
    await expectSameBytes(pipe(base, ties({ ...options, measured: found })))
  })
})

describe('dareTies', () => {
  const drop = { density: 0.4, seed: 3 }
  const sparse = () => ({ models: models.map((model) => ({ model, density: 0.4 })), seed: 3 })

  it('is mask, rescaling, election and mean', async () => {
    const merged = pipe(base, dareTies(sparse()))
    const name = 'model.layers.0.self_attn.q_proj.weight'
    const [b, ...others] = await Promise.all(
      [base, ...models].map(({ tensors, sources }) => valuesOf(tensors.get(name)!, sources)),
    )
    const dropped = others.map((values, t) => {
      const [bytes, mask] = [new Uint8Array(values.length * 2), new Float32Array(values.length)]
      randomMask(drop.density, drop.seed, `${name} of model ${t + 1}`, 0, bytes, 'reference')
      decode('BF16', bytes, mask)
      return values.map((x, i) => f32(1 / drop.density) * f32(mask[i]! * f32(x - b![i]!)))
    })
    const expected = b!.map((x, i) => f32(x + elected(dropped.map((tau) => tau[i]!))))
    const wide = { ...merged.tensors.get(name)!, dtype: 'F32' as const }
    expect(await valuesOf(wide, merged.sources)).toEqual(expected)
  })

  it('gives the same bytes for any threads, tiles and kernels, trimmed or not', async () => {
    await expectSameBytes(pipe(base, dareTies(sparse())))
    const options = { models: models.map((model) => ({ model, density: 0.2 })), drop }
    await expectSameBytes(pipe(base, ties({ ...options, measured: await measured(options) })))
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
