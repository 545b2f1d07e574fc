import { mkdtemp, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { checkInputStates, inputStates, planCheckpoint, planKey } from '@polygraft/engine'
import { type Checkpoint, read, type Source, scale } from '@polygraft/tensor'
import { fileSource } from '@polygraft/tensor-io/node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bf16, checkpointOf, sourceOf } from '../../test/memory.js'

let dir = ''
let path = ''
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'polygraft-engine-'))
  path = join(dir, 'model.safetensors')
})
afterAll(() => rm(dir, { recursive: true }))

const source = sourceOf('s', { a: bf16([1, 2, 3, 4], [2, 2]), b: bf16([5, 6, 7, 8], [2, 2]) })

function example(change: Partial<Checkpoint> = {}): Checkpoint {
  const checkpoint = checkpointOf(source)
  const tensors = new Map(checkpoint.tensors)
  tensors.set('c', { dtype: 'BF16', shape: [4], expr: scale(0.5, read('s', 'a')) })
  const files = new Map([['tokenizer.json', new Blob(['{}'])]])
  return { ...checkpoint, tensors, files, provenance: { recipe: [{ op: 'x' }], skipped: [] }, ...change }
}

const keyOf = (checkpoint: Checkpoint, version = '1', maxShardBytes = 1e9) =>
  planKey(checkpoint, planCheckpoint(checkpoint, { maxShardBytes }), version)

const withTensor = (name: string, change: object) => {
  const { tensors } = example()
  return example({ tensors: new Map([...tensors, [name, { ...tensors.get(name)!, ...change }]]) })
}
const withState = (state: string): Source => ({
  ...source,
  shards: new Map(
    [...source.shards].map(([name, bytes]) => [name, Object.assign(bytes.slice(0, bytes.size), { state })]),
  ),
})

describe('planKey', () => {
  it('is the same for the same work', () => {
    expect(keyOf(example())).toMatch(/^[0-9a-f]{64}$/)
    expect(keyOf(example())).toBe(keyOf(example()))
    const { tensors } = example()
    const threads = planKey(example(), planCheckpoint(example(), { threads: 7, memoryBytes: 1e9 }), '1')
    expect(threads).toBe(keyOf(example({ tensors: new Map(tensors) })))
  })

  it('is another one when anything is different that the bytes depend on', () => {
    const { tensors } = example()
    const keys = {
      usual: keyOf(example()),
      version: keyOf(example(), '2'),
      shards: keyOf(example(), '1', 10),
      factor: keyOf(withTensor('c', { expr: scale(0.25, read('s', 'a')) })),
      operand: keyOf(withTensor('c', { expr: scale(0.5, read('s', 'b')) })),
      shape: keyOf(withTensor('c', { shape: [2, 2] })),
      dtype: keyOf(withTensor('c', { dtype: 'F16' })),
      order: keyOf(example({ tensors: new Map([...tensors].reverse()) }), '1', 10),
      fewer: keyOf(example({ tensors: new Map([...tensors].slice(1)) })),
      config: keyOf(example({ config: { model_type: 'qwen2' } })),
      recipe: keyOf(example({ provenance: { recipe: [{ op: 'y' }], skipped: [] } })),
      experts: keyOf(example({ provenance: { recipe: [{ op: 'x' }], skipped: [], experts: ['e'] } })),
      fileName: keyOf(example({ files: new Map([['merges.txt', new Blob(['{}'])]]) })),
      fileSize: keyOf(example({ files: new Map([['tokenizer.json', new Blob(['{ }'])]]) })),
      moreInputs: keyOf(example({ sources: new Map([...example().sources, ['t', { ...source, id: 't' }]]) })),
      remoteState: keyOf(example({ sources: new Map([['s', withState('ETag 1')]]) })),
      otherState: keyOf(example({ sources: new Map([['s', withState('ETag 2')]]) })),
    }
    expect(new Set(Object.values(keys)).size).toBe(Object.keys(keys).length)
  })
})

describe('inputStates', () => {
  const local = () => {
    const shards = new Map([['model.safetensors', fileSource(path)]])
    return example({ sources: new Map([['s', { ...source, shards }]]) })
  }

  it('are those of the files when they were opened: a change is another key, and an error in the end', async () => {
    const bytes = new Uint8Array(await source.shards.get('model.safetensors')!.arrayBuffer())
    await writeFile(path, bytes)
    await utimes(path, 1000, 1000)
    const before = local()
    checkInputStates(inputStates(before))
    const key = keyOf(before)
    await writeFile(path, bytes)
    // Between opening and planning.
    expect(keyOf(before)).toBe(key)
    expect(() => checkInputStates(inputStates(before))).toThrow('changed')
    expect(keyOf(local())).not.toBe(key)
    await utimes(path, 1000, 1000)
    expect(keyOf(local())).toBe(key)
    checkInputStates(inputStates(before))
    await rm(path)
    expect(() => checkInputStates(inputStates(before))).toThrow('gone')
  })
})
