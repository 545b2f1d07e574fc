import {
  buildKernel,
  compileKernel,
  type KernelExpr,
  referenceKernel,
  simdAvailable,
  simdKernel,
} from '@polygraft/kernels'
import type { FloatDType } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  EVERY_OPERATION,
  expectEqual,
  fill,
  input,
  kernels,
  SPECIAL,
  TAME,
  wordsOf,
} from '../test/any-kernel.js'
import { generate } from './_codegen.js'

declare const WebAssembly: { validate(bytes: Uint8Array): boolean }

type Narrow = Exclude<FloatDType, 'F64'>
const DTYPES: readonly Narrow[] = ['F32', 'F16', 'BF16']

describe('SIMD and reference', () => {
  it('agree bit for bit on any kernel, with NaN, infinities, zeros and subnormals, for any count', () => {
    const property = fc.property(
      kernels(DTYPES),
      fc.integer(),
      fc.integer({ min: 1, max: 70 }),
      fc.boolean(),
      (kernel, seed, count, isTame) => {
        for (const mode of ['exact', 'finite'] as const)
          expect(WebAssembly.validate(generate(kernel, mode))).toBe(true)
        const reference = referenceKernel(kernel, 70)
        fill(kernel, reference.inputs, seed, isTame)
        expectEqual(kernel, reference, simdKernel(kernel, 70)!, count)
      },
    )
    fc.assert(property, { numRuns: 400 })
  })

  it('agree on every operation and mix of dtypes', () => {
    for (const [i, j, k, out] of DTYPES.flatMap((i) =>
      DTYPES.flatMap((j) => DTYPES.flatMap((k) => DTYPES.map((out) => [i, j, k, out] as const))),
    )) {
      const kernel = buildKernel(
        [i, j, k],
        EVERY_OPERATION.map((expr) => ({ expr, dtype: out })),
      )
      const [reference, simd] = [referenceKernel(kernel, 1001), simdKernel(kernel, 1001)!]
      for (const isTame of [false, true]) {
        fill(kernel, reference.inputs, 7, isTame)
        expectEqual(kernel, reference, simd, 1001)
      }
    }
  })

  it.each(['BF16', 'F16'] as const)('agree on grafts of all 65,536 %s patterns with samples', (dtype) => {
    const kernel = buildKernel(
      [dtype, dtype, dtype],
      [1, 0.75].map((lambda) => ({
        expr: { op: 'graft' as const, cpt: input(0), base: input(1), post: input(2), lambda },
        dtype,
      })),
    )
    const [reference, simd] = [referenceKernel(kernel, 0x10000), simdKernel(kernel, 0x10000)!]
    const samples = [...SPECIAL[dtype], 0x2e66, 0xae67, 0x3c01, 0xbc11]
    const all = (add: number) => (_: number, i: number) => i + add
    for (const [k, sample] of samples.entries()) {
      const other = samples[(k * 5 + 3) % samples.length]!
      for (const makers of [
        [all(0), () => sample, () => other],
        [() => sample, all(0), () => other],
        [() => sample, () => other, all(0)],
        [() => sample, all(0), all(1)],
        [all(0), all(0), () => sample],
      ]) {
        for (const [i, bytes] of reference.inputs.entries()) {
          const words = wordsOf(dtype, bytes)
          words.set(words.map(makers[i]!))
        }
        expectEqual(kernel, reference, simd, 0x10000)
        for (const bytes of reference.inputs) {
          const words = wordsOf(dtype, bytes)
          words.set(words.map((word) => word & TAME[dtype]))
        }
        expectEqual(kernel, reference, simd, 0x10000)
      }
    }
  })

  it('agree on experts that share base and post, each with its own lambda', () => {
    for (const dtype of DTYPES) {
      const outputs = [1, 1, 0.5, 0, 1.25, -1].map((lambda, e) => ({
        expr: { op: 'graft' as const, cpt: input(2 + e), base: input(0), post: input(1), lambda },
        dtype,
      }))
      const kernel = buildKernel(Array<FloatDType>(8).fill(dtype), outputs)
      const [reference, simd] = [referenceKernel(kernel, 999), simdKernel(kernel, 999)!]
      for (const isTame of [false, true]) {
        fill(kernel, reference.inputs, 3, isTame)
        expectEqual(kernel, reference, simd, 999)
      }
    }
  })

  it.each(DTYPES)('elect signs among eight, %s', (dtype) => {
    const args = Array.from({ length: 8 }, (_, i) => input(i))
    const kernel = buildKernel(Array<FloatDType>(8).fill(dtype), [{ expr: { op: 'elect', args }, dtype }])
    const reference = referenceKernel(kernel, 5003)
    fill(kernel, reference.inputs, 5)
    expectEqual(kernel, reference, simdKernel(kernel, 5003)!, 5003)
  })

  it.each(DTYPES)('keep the largest in tiles beyond one call, %s', (dtype) => {
    const count = 0x8000 * 8 * 2 + 13
    const expr: KernelExpr = { op: 'keep', arg: input(0), threshold: 1, tieEnd: 0x8000 * 8 + 21 }
    const kernel = buildKernel([dtype], [{ expr, dtype }])
    const [reference, simd] = [referenceKernel(kernel, count), simdKernel(kernel, count)!]
    fill(kernel, reference.inputs, 11)
    const words = wordsOf(dtype, reference.inputs[0]!)
    for (let i = 0; i < count; i += 3) words[i] = SPECIAL[dtype][1]! // 1
    expectEqual(kernel, reference, simd, count)
  })

  it('agree on tiles beyond what the counters of one call hold', () => {
    const count = 0x8000 * 8 + 8 * 3 + 5
    const kernel = buildKernel(
      ['BF16', 'BF16', 'BF16'],
      [{ expr: { op: 'graft', cpt: input(0), base: input(1), post: input(2), lambda: 1 }, dtype: 'BF16' }],
    )
    const tile = simdKernel(kernel, count)!
    wordsOf('BF16', tile.inputs[0]!).fill(0x3f80)
    wordsOf('BF16', tile.inputs[2]!).fill(0x0001)
    expect(tile.run(count, [1])).toMatchObject({ changed: count, swallowed: count })
    wordsOf('BF16', tile.inputs[2]!).fill(0)
    expect(tile.run(count, [1])).toMatchObject({ changed: 0, swallowed: 0 })
  })
})

describe('a SIMD kernel', () => {
  const kernel = buildKernel(
    ['F16', 'F32'],
    [{ expr: { op: 'add', args: [input(0), input(1)] }, dtype: 'BF16' }],
  )

  it('is what compileKernel gives where there is SIMD', () => {
    expect(simdAvailable()).toBe(true)
    const tile = compileKernel(kernel, 5)
    expect(tile.inputs.map((view) => view.length)).toEqual([10, 20])
    expect(tile.outputs.map((view) => view.length)).toEqual([10])
    expect(tile.inputs[0]!.buffer).toBe(tile.outputs[0]!.buffer)
  })

  it('has a memory of its own', () => {
    const [one, two] = [simdKernel(kernel, 5)!, simdKernel(kernel, 5)!]
    one.inputs[0]!.fill(1)
    expect(two.inputs[0]!.every((byte) => byte === 0)).toBe(true)
  })

  it('is refused where tiles would exceed 4 GiB', () => {
    expect(simdKernel(kernel, 2 ** 30)).toBeUndefined()
  })
})
