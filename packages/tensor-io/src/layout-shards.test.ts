import { existsSync } from 'node:fs'
import { formatIndex, layoutShards } from '@polygraft/tensor-io'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { cases, dataBytes, failure, fileOf, golden, goldenFolder, specs } from '../test/support.js'

const INDEX = 'model.safetensors.index.json'
const f32 = (n: number) => ({ dtype: 'F32', shape: [n] }) as const

describe('layoutShards', () => {
  it.each(cases.folders)(
    'splits and indexes as save_pretrained: $folder',
    ({ folder, tensors, maxShardBytes }) => {
      const layouts = layoutShards(specs(tensors), maxShardBytes)
      const all = new Map(specs(tensors))
      for (const { file, tensors } of layouts) {
        const shard = [...tensors.keys()].map((name) => [name, all.get(name)!] as const)
        expect(Buffer.from(fileOf(shard, { format: 'pt' })).equals(golden(`${folder}/${file}`))).toBe(true)
      }
      const hasIndex = existsSync(`${goldenFolder}${folder}/${INDEX}`)
      expect(layouts.length > 1).toBe(hasIndex)
      if (hasIndex) expect(formatIndex(layouts)).toBe(new TextDecoder().decode(golden(`${folder}/${INDEX}`)))
    },
  )

  it('names a single file without numbers, even without tensors', () => {
    expect(layoutShards([['a', f32(3)]], 1e9).map(({ file }) => file)).toEqual(['model.safetensors'])
    expect(layoutShards([], 1e9).map(({ file, tensors }) => [file, tensors.size])).toEqual([
      ['model.safetensors', 0],
    ])
    const named = (limit: number) =>
      layoutShards(
        [
          ['a', f32(3)],
          ['b', f32(3)],
        ],
        limit,
        {},
        'adapter_model',
      )
    expect(named(1e9).map(({ file }) => file)).toEqual(['adapter_model.safetensors'])
    expect(named(12).map(({ file }) => file)[1]).toBe('adapter_model-00002-of-00002.safetensors')
  })

  it('puts every tensor into one shard, and more than the limit only alone', () => {
    const sizes = fc.array(fc.nat(20), { minLength: 1, maxLength: 20 })
    fc.assert(
      fc.property(sizes, fc.integer({ min: 1, max: 100 }), (sizes, limit) => {
        const tensors = sizes.map((n, i) => [`t${i}`, f32(n)] as const)
        const layouts = layoutShards(tensors, limit)
        const names = layouts.flatMap((layout) => [...layout.tensors.keys()])
        expect(names.toSorted()).toEqual(tensors.map(([name]) => name).toSorted())
        for (const { tensors, size, header } of layouts)
          expect(size - header.length <= limit || tensors.size === 1).toBe(true)
        const total = tensors.reduce((sum, [, spec]) => sum + dataBytes(spec), 0)
        expect(JSON.parse(formatIndex(layouts)).metadata.total_size).toBe(total)
      }),
    )
  })

  it('refuses a name that two shards would share, and a limit that is none', async () => {
    const twice = [
      ['a', f32(10)],
      ['b', f32(10)],
      ['a', f32(10)],
    ] as const
    expect((await failure(() => layoutShards(twice, 40))).code).toBe('bad-name')
    for (const limit of [0, -1, Number.NaN])
      expect((await failure(() => layoutShards([], limit))).code).toBe('bad-shard-size')
  })
})
