import { createPairMeter } from '@polygraft/engine'
import { read, type Tensor } from '@polygraft/tensor'
import { expect, it } from 'vitest'
import { f32, sourceOf } from '../test/memory.js'

const n = 70_000 // more than one tile
const x = Float32Array.from({ length: n }, (_, i) => Math.fround(Math.sin(i)))
const y = x.map((value, i) => (i % 7 === 0 ? Math.fround(value + 0.125) : value))
const source = sourceOf('s', {
  x: f32(x),
  y: f32(y),
  i: { dtype: 'I8', shape: [1], bytes: Uint8Array.of(1) },
})
const tensor = (name: string): Tensor => ({ ...source.tensors.get(name)!, expr: read('s', name) })

it('sums in index order over all tiles', async () => {
  const moments = await createPairMeter(new Map([['s', source]])).measure('t', tensor('x'), tensor('y'))
  const expected = { sumA2: 0, sumB2: 0, dot: 0, sumDelta2: 0, changed: 0, maxAbs: 0 }
  for (let i = 0; i < n; i++) {
    expected.sumA2 += x[i]! * x[i]!
    expected.sumB2 += y[i]! * y[i]!
    expected.dot += x[i]! * y[i]!
    expected.sumDelta2 += (y[i]! - x[i]!) ** 2
    expected.changed += Number(x[i] !== y[i])
    expected.maxAbs = Math.max(expected.maxAbs, Math.abs(y[i]! - x[i]!))
  }
  expect(moments.count).toBe(n)
  expect(moments.sumA2).toBe(expected.sumA2)
  expect(moments.sumB2).toBe(expected.sumB2)
  expect(moments.dot).toBe(expected.dot)
  expect(moments.sumDelta2).toBeCloseTo(expected.sumDelta2, 10)
  expect(moments.changed).toBe(expected.changed)
  expect(moments.maxAbsDelta).toBeCloseTo(expected.maxAbs, 12)
})

it('refuses integers and unequal sizes by name', async () => {
  const meter = createPairMeter(new Map([['s', source]]))
  await expect(meter.measure('t', tensor('i'), tensor('i'))).rejects.toThrow('not-a-float')
  await expect(meter.measure('t', tensor('i'), tensor('x'))).rejects.toThrow('shape-mismatch')
})
