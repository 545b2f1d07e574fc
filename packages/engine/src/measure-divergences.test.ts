import { measureDivergences, measureThresholds } from '@polygraft/engine'
import { rowDivergences } from '@polygraft/kernels'
import { literal, read, type Tensor } from '@polygraft/tensor'
import { expect, it } from 'vitest'
import { f32, sourceOf } from '../test/memory.js'

const [rows, width] = [1031, 1021] // more than one task
const a = Float32Array.from({ length: rows * width }, (_, i) => Math.sin(i * i))
const b = a.map((x, i) => x + (i % 3 === 0 ? Math.cos(i) / 8 : 0))
b[5 * width + 3] = Number.NaN
const source = sourceOf('m', { a: f32([...a]), b: f32([...b]), ints: { ...f32([1]), dtype: 'I32' } })
const sources = new Map([['m', source]])
const stored = (name: string): Tensor => ({ ...source.tensors.get(name)!, expr: read('m', name) })

it('has the divergence of each row, with the same bits for any tiles and kernels', async () => {
  const all = rowDivergences(width)
  all.add(a, b)
  const wanted = new Map([['ab', { a: stored('a'), b: stored('b'), width }]])
  for (const options of [{}, { tileElements: 4096 }, { kernels: 'reference' } as const])
    expect((await measureDivergences(wanted, sources, options)).get('ab')).toEqual(all.result())
  expect(all.result()[5]).toBeNaN()
  expect(await measureDivergences(new Map(), sources)).toEqual(new Map())
})

it('ranks what stands beside a zero, so that the least of a tensor can be looked for', async () => {
  const expr = { op: 'concat', args: [literal(Float32Array.of(3, -2)), literal(Float32Array.of(0))] } as const
  const tensor: Tensor = { dtype: 'F32', shape: [3], expr: { ...expr, sizes: [2, 1] } }
  const found = await measureThresholds(new Map([['few', { tensor, keep: 2 }]]), sources)
  expect(found.get('few')).toMatchObject({ threshold: 2, kept: 2, keptAtThreshold: 1 })
})

it('refuses rows that are not whole, other sizes and what is no float, all of them', async () => {
  const wanted = new Map([
    ['rows', { a: stored('a'), b: stored('b'), width: 1000 }],
    ['sizes', { a: stored('a'), b: stored('ints'), width }],
  ])
  await expect(measureDivergences(wanted, sources)).rejects.toMatchObject({
    problems: [{ code: 'bad-count' }, { code: 'shape-mismatch' }, { code: 'not-a-float' }],
  })
})
