import type { DType } from '@polygraft/tensor'
import { formatSafetensors } from '@polygraft/tensor-io'
import { describe, expect, it } from 'vitest'
import { cases, failure, fileOf, golden, specs } from '../test/support.js'

const u8 = (shape: number[]) => ({ dtype: 'U8' as DType, shape })

describe('formatSafetensors', () => {
  it.each(cases.files)('writes the reference writer’s bytes: $file', ({ file, tensors, metadata }) => {
    expect(Buffer.from(fileOf(specs(tensors), metadata)).equals(golden(file))).toBe(true)
  })

  it('does not depend on the order of its input', () => {
    const { tensors } = cases.files.find(({ file }) => file === 'order.safetensors')!
    expect(fileOf(specs(tensors).reverse())).toEqual(golden('order.safetensors'))
  })

  it('aligns the data to 8 bytes', () => {
    for (let i = 0; i < 9; i++) {
      const { header, tensors, size } = formatSafetensors([['n'.repeat(i), u8([3])]])
      expect(header.length % 8).toBe(0)
      expect([...tensors.values()]).toEqual([{ begin: header.length, end: header.length + 3 }])
      expect(size).toBe(header.length + 3)
    }
  })

  it('writes metadata in its own order', () => {
    const text = new TextDecoder().decode(formatSafetensors([], { z: '1', a: '2' }).header.subarray(8))
    expect(text.trimEnd()).toBe('{"__metadata__":{"z":"1","a":"2"}}')
  })

  it.each([
    [
      'a name used twice',
      [
        ['a', u8([1])],
        ['a', { dtype: 'F32', shape: [1] }],
      ],
      'bad-name',
    ],
    ['the metadata’s name', [['__metadata__', u8([1])]], 'bad-name'],
    ['half a surrogate pair', [['\ud800', u8([1])]], 'bad-name'],
    ['a negative size', [['a', u8([-1])]], 'bad-shape'],
    ['a fractional size', [['a', u8([0.5, 2])]], 'bad-shape'],
    ['a product beyond 2^53', [['a', u8([2 ** 30, 2 ** 30])]], 'bad-shape'],
    ['half a byte', [['a', { dtype: 'F4', shape: [3] }]], 'bad-shape'],
  ] as const)('refuses %s', async (_, tensors, code) => {
    expect((await failure(() => formatSafetensors(tensors))).code).toBe(code)
  })

  it('lists all tensors it cannot store', async () => {
    const error = await failure(() =>
      formatSafetensors([
        ['a', u8([-1])],
        ['b', u8([1])],
        ['c', u8([-2])],
      ]),
    )
    expect(error.problems.map(({ tensor }) => tensor)).toEqual(['a', 'c'])
  })
})
