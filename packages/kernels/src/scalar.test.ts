import { buildKernel, compileKernel, referenceKernel, scalarKernel, simdKernel } from '@polygraft/kernels'
import type { FloatDType } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { EVERY_OPERATION, expectEqual, fill, input, kernels } from '../test/any-kernel.js'

const DTYPES: readonly FloatDType[] = ['F64', 'F32', 'F16', 'BF16']

describe('the scalar loop and the reference', () => {
  it('agree bit for bit on any kernel, with NaN, infinities, zeros and subnormals, for any count', () => {
    const property = fc.property(
      kernels(DTYPES),
      fc.integer(),
      fc.integer({ min: 0, max: 70 }),
      fc.boolean(),
      (kernel, seed, count, isTame) => {
        const reference = referenceKernel(kernel, 70)
        fill(kernel, reference.inputs, seed, isTame)
        expectEqual(kernel, reference, scalarKernel(kernel, 70)!, count)
      },
    )
    fc.assert(property, { numRuns: 500 })
  })

  const mixes = DTYPES.flatMap((i) => DTYPES.flatMap((j) => DTYPES.map((out) => [i, j, out] as const)))
  it.each(mixes)('agree on every operation of %s and %s to %s', (i, j, out) => {
    const outputs = EVERY_OPERATION.map((expr) => ({ expr, dtype: out }))
    const kernel = buildKernel([i, j, i], outputs)
    const [reference, scalar] = [referenceKernel(kernel, 3001), scalarKernel(kernel, 3001)!]
    for (const isTame of [false, true]) {
      fill(kernel, reference.inputs, 7, isTame)
      expectEqual(kernel, reference, scalar, 3001)
    }
  })

  it('agree on F64 cast to every other dtype, also within F64 arithmetic', () => {
    const casts = DTYPES.map((dtype) => ({ op: 'cast', dtype, arg: input(0) }) as const)
    const outputs = casts.flatMap((expr) => [
      { expr, dtype: 'F64' as const },
      { expr: input(0), dtype: expr.dtype },
    ])
    const kernel = buildKernel(['F64'], outputs)
    const reference = referenceKernel(kernel, 50_000)
    fill(kernel, reference.inputs, 13)
    expectEqual(kernel, reference, scalarKernel(kernel, 50_000)!, 50_000)
  })

  it('agree on one node in both precisions', () => {
    const expr = { op: 'add', args: [input(0), { op: 'scale', by: 0.1, arg: input(1) }] } as const
    const kernel = buildKernel(
      ['F64', 'F16'],
      DTYPES.map((dtype) => ({ expr, dtype })),
    )
    const reference = referenceKernel(kernel, 1000)
    fill(kernel, reference.inputs, 17)
    expectEqual(kernel, reference, scalarKernel(kernel, 1000)!, 1000)
  })
})

describe('compileKernel', () => {
  it('takes the scalar loop just for F64', () => {
    const of = (dtype: FloatDType) => buildKernel([dtype], [{ expr: input(0), dtype: 'F32' }])
    expect(simdKernel(of('F64'), 5)).toBeUndefined()
    expect(simdKernel(of('F16'), 5)).toBeDefined()
    // Both have their tiles in one memory; the reference's lie apart.
    const tile = compileKernel(of('F64'), 5)
    expect(tile.inputs[0]!.buffer).toBe(tile.outputs[0]!.buffer)
    expect(tile.inputs[0]!.length).toBe(40)
  })

  it('refuses more scalars, ends or elements than there are', () => {
    const expr = { op: 'keep', arg: input(0), threshold: 1, tieEnd: 3 } as const
    const kernel = buildKernel(['F64'], [{ expr, dtype: 'F64' }])
    const tile = scalarKernel(kernel, 5)!
    expect(() => tile.run(6, kernel.scalars, kernel.ends)).toThrow('does not hold')
    expect(() => tile.run(5, [], kernel.ends)).toThrow('Scalars are missing')
    expect(() => tile.run(5, kernel.scalars)).toThrow('Ends are missing')
    expect(scalarKernel(kernel, 2 ** 29)).toBeUndefined()
  })
})
