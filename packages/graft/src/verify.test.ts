import { createHash } from 'node:crypto'
import { createDelta, scaleDelta } from '@polygraft/delta'
import {
  type GraftSettings,
  graft,
  type VerifyReport,
  verify,
  verifyDigests,
  verifyUpcycle,
} from '@polygraft/graft'
import { type Checkpoint, pipe } from '@polygraft/tensor'
import { beforeAll, describe, expect, it } from 'vitest'
import { denseModel, type Edit, mixtureOf, perturb, store, tokenizer } from '../test/models.js'

let base: Checkpoint
let post: Checkpoint
let cpt: Checkpoint
beforeAll(async () => {
  const files = tokenizer('a', 'b')
  base = await denseModel('llama', 1, { files })
  post = await store(base, { edit: perturb(2, 0.5) })
  const trained = (name: string) => /experts\.[1-9]|sparse_moe\.gate/.test(name)
  cpt = await store(mixtureOf(base, 3), { edit: perturb(5, 0.9, trained) })
})

const failed = ({ checks }: VerifyReport) => checks.filter(({ ok }) => !ok).map(({ name }) => name)
const detail = ({ checks }: VerifyReport, wanted: string) =>
  checks.find(({ name }) => name === wanted)?.detail
const grafted = (settings: GraftSettings = {}, edit?: Edit) =>
  store(pipe(cpt, graft({ base, post, ...settings })), edit ? { edit } : {})
/** Flips the lowest bit of the first element of tensor `name`. */
const flip =
  (name: string): Edit =>
  (each, bytes) => {
    if (each === name) bytes[0]! ^= 1
  }

describe('verify', () => {
  it('finds every property in a graft, and says what it compared', async () => {
    const output = await grafted()
    const bytes: number[][] = []
    const report = await verify(output, { base, post, cpt }, { onProgress: (...each) => bytes.push(each) })
    expect(failed(report)).toEqual([])
    expect(report.checks.map(({ name }) => name)).toEqual([
      'tensors',
      'config',
      'files',
      'parameters',
      'routers',
      'graft',
      'finite',
      'frozen',
      'ungraft',
    ])
    expect(detail(report, 'routers')).toBe('2 routers, bit for bit those of cpt')
    expect(detail(report, 'frozen')).toMatch(/21 of 33 tensors wholly, of expert 0 6 of 6$/)
    expect(bytes.at(-1)![0]).toBe(bytes.at(-1)![1])
  })

  it('names where a factor was too large', async () => {
    const settings = { lambda: 3e38, layerLambda: new Map([[0, 10]]) }
    const report = await verify(await grafted(settings), { base, post, cpt })
    expect(failed(report)).toContain('finite')
    expect(detail(report, 'finite')).toContain('model.layers.0.')
  })

  it.each<[string, GraftSettings]>([
    ['factors', { lambda: 0.5, expertLambda: new Map([[1, 2]]), layerLambda: new Map([[0, 0]]) }],
    ['a fold', { foldRouter: true }],
  ])('takes the settings from the recipe (%s)', async (_, settings) => {
    expect(failed(await verify(await grafted(settings), { base, post, cpt }))).toEqual([])
  })

  it('makes a stored delta again from base and post', async () => {
    const delta = pipe(await store(createDelta({ base, post })), scaleDelta(0.5))
    const output = await store(pipe(cpt, graft({ delta })))
    const report = await verify(output, { base, post, cpt })
    expect(failed(report)).toEqual([])
    expect(detail(report, 'frozen')).toContain('not claimed')
  })

  it('sees one wrong bit, wherever it is', async () => {
    const frozen = 'model.layers.0.block_sparse_moe.experts.0.w1.weight'
    const at = async (name: string) =>
      failed(await verify(await grafted({}, flip(name)), { base, post, cpt }))
    expect(await at(frozen)).toEqual(expect.arrayContaining(['graft', 'frozen']))
    expect(await at('model.layers.1.block_sparse_moe.gate.weight')).toEqual(['routers', 'graft'])
    expect(await at('model.layers.1.block_sparse_moe.experts.2.w3.weight')).toContain('graft')
  })

  it('sees what is missing, of another shape, or from other sources', async () => {
    const output = await grafted()
    const lacking = new Map(output.tensors)
    lacking.delete('model.norm.weight')
    expect(failed(await verify({ ...output, tensors: lacking }, { base, post, cpt }))).toEqual([
      'tensors',
      'parameters',
    ])
    const config = { ...output.config, rms_norm_eps: 1 }
    expect(failed(await verify({ ...output, config, files: new Map() }, { base, post, cpt }))).toEqual([
      'config',
      'files',
    ])
    const other = await denseModel('llama', 9)
    expect(failed(await verify(output, { base, post: other, cpt }))).toContain('graft')
    expect(failed(await verify(output, { base: await denseModel('qwen3', 9), post, cpt }))).toEqual([
      'sources',
    ])
  })

  it('stops when it is told to', async () => {
    const signal = AbortSignal.abort(new Error('enough'))
    await expect(verify(await grafted(), { base, post, cpt }, { signal })).rejects.toThrow('enough')
  })
})

describe('verifyUpcycle', () => {
  it.each(['llama', 'mistral', 'qwen2', 'qwen3'])(
    'finds every expert a copy of the dense block (%s)',
    async (modelType) => {
      const dense = await denseModel(modelType, 1)
      const report = await verifyUpcycle(await store(mixtureOf(dense, 3)), { base: dense })
      expect(failed(report)).toEqual([])
      expect(detail(report, 'experts')).toBe('18 matrices of experts, bit for bit those of base')
    },
  )

  it('sees what is no copy, and routers that cannot tell experts apart', async () => {
    const mixture = mixtureOf(base, 2)
    const at = async (edit: Edit) => failed(await verifyUpcycle(await store(mixture, { edit }), { base }))
    expect(await at(flip('model.layers.1.block_sparse_moe.experts.1.w1.weight'))).toEqual(['experts'])
    expect(await at(flip('model.norm.weight'))).toEqual(['others'])
    expect(await at((name, bytes) => void (name.includes('moe.gate') && bytes.fill(0)))).toEqual(['routers'])
    expect(await at((name, bytes) => void (name.includes('moe.gate') && bytes.fill(1)))).toEqual(['routers'])
    expect(failed(await verifyUpcycle(mixture, { base: await denseModel('qwen3', 1) }))).toContain('others')
  })
})

describe('verifyDigests', () => {
  const bytes = new TextEncoder().encode('weights')
  const shard = {
    file: 'model.safetensors',
    bytes: bytes.length,
    sha256: createHash('sha256').update(bytes).digest('hex'),
  }
  const files = (content: string, name = shard.file) => new Map([[name, new Blob([content])]])
  const check = async (content: string, name?: string) => {
    const report = await verifyDigests({ shards: [shard] }, files(content, name))
    return `${report.ok} ${detail(report, 'digests')}`
  }

  it('compares sizes and SHA-256', async () => {
    expect(await check('weights')).toBe('true 1 files, 7 bytes, as in polygraft.json')
    expect(await check('Weights')).toBe('false model.safetensors has another SHA-256')
    expect(await check('w')).toBe('false model.safetensors has 1 bytes in place of 7')
    expect(await check('weights', 'b.safetensors')).toBe(
      'false model.safetensors is not there, b.safetensors is not in the manifest',
    )
  })

  it('refuses a manifest without digests', async () => {
    await expect(verifyDigests({}, new Map())).rejects.toMatchObject({ code: 'bad-manifest' })
    await expect(verifyDigests({ shards: [{ file: 'x' }] }, new Map())).rejects.toMatchObject({
      code: 'bad-manifest',
    })
  })
})
