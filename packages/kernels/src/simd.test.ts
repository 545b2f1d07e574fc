import {
  buildKernel,
  compileKernel,
  type Kernel,
  type KernelExpr,
  referenceKernel,
  simdAvailable,
  simdKernel,
  type TileKernel,
} from '@polygraft/kernels'
import type { FloatDType } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { generate } from './_codegen.js'

declare const WebAssembly: { validate(bytes: Uint8Array): boolean }

type Narrow = Exclude<FloatDType, 'F64'>
const DTYPES: readonly Narrow[] = ['F32', 'F16', 'BF16']
/** Zeros, ones, the ends of the subnormals, the largest, infinities, quiet and signalling NaN; and their negatives. */
const SPECIAL = {
  F32: [
    0, 0x3f800000, 1, 0x7fffff, 0x800000, 0x7f7fffff, 0x7f800000, 0x7fc00000, 0x7f800001, 0x7fffffff,
    0x477fefff,
  ],
  F16: [0, 0x3c00, 1, 0x3ff, 0x400, 0x7bff, 0x7c00, 0x7e00, 0x7c01, 0x7fff],
  BF16: [0, 0x3f80, 1, 0x7f, 0x80, 0x7f7f, 0x7f80, 0x7fc0, 0x7f81, 0x7fff],
}
const SCALARS = [1, 0, -0, -1, 0.5, 0.1, 1e-40, 3e38, Number.POSITIVE_INFINITY, Number.NaN]

const input = (index: number): KernelExpr => ({ op: 'input', index })
type Elect = Extract<KernelExpr, { op: 'elect' }>
const election = fc.record(
  {
    by: fc.constantFrom('sum' as const, 'count' as const, 'any' as const),
    zero: fc.constant('positive' as const),
    weighted: fc.boolean(),
  },
  { requiredKeys: [] },
)
function electExpr(drawn: {
  election: Pick<Elect, 'by' | 'zero'> & { weighted?: boolean }
  args: readonly KernelExpr[]
  weights: readonly number[]
}): KernelExpr {
  const { weighted, ...choice } = drawn.election
  const weights = weighted ? drawn.weights.slice(0, drawn.args.length) : []
  return { op: 'elect', args: drawn.args, ...choice, ...(weighted === undefined ? {} : { weights }) }
}
const kernelArbitrary: fc.Arbitrary<Kernel> = fc
  .array(fc.constantFrom(...DTYPES), { minLength: 1, maxLength: 4 })
  .chain((inputs) => {
    const scalar = fc.constantFrom(...SCALARS)
    const { expr } = fc.letrec<{ expr: KernelExpr }>((tie) => {
      const e = tie('expr')
      const leaf = fc.nat(inputs.length - 1).map(input)
      const args = fc.array(e, { minLength: 1, maxLength: 3 })
      return {
        expr: fc.oneof(
          { maxDepth: 4 },
          leaf,
          fc.record({
            op: fc.constantFrom('add' as const, 'sub' as const, 'mul' as const),
            args,
          }),
          fc.record({ election, args, weights: fc.tuple(scalar, scalar, scalar) }).map(electExpr),
          fc.record({ op: fc.constant('elect' as const), args, sum: e }),
          fc.record({ op: fc.constant('clamp' as const), arg: e, to: e, by: scalar }),
          fc.record({ op: fc.constant('scale' as const), by: scalar, arg: e }),
          fc.record({ op: fc.constant('cast' as const), dtype: fc.constantFrom(...DTYPES), arg: e }),
          fc.record({ op: fc.constant('ratio' as const), num: e, den: e, guard: scalar }),
          fc.record({
            op: fc.constant('keep' as const),
            arg: e,
            by: e,
            threshold: fc.constantFrom(0, 1, 1e-40, 0.5, 65504, 3e38, Number.POSITIVE_INFINITY),
            tieEnd: fc.constantFrom(-1, 0, 1, 7, 8, 13, 64, 1e12),
          }),
          fc.record({ op: fc.constant('graft' as const), cpt: e, base: e, post: e, lambda: scalar }),
          fc.record({
            op: fc.constant('graft' as const),
            cpt: e,
            base: e,
            post: e,
            lambda: scalar,
            frozen: e,
          }),
          fc.record({ op: fc.constant('select' as const), mask: e, on: e, off: e }),
        ),
      }
    })
    const output = fc.record({ expr, dtype: fc.constantFrom(...DTYPES) })
    return fc.array(output, { minLength: 1, maxLength: 3 }).map((outputs) => buildKernel(inputs, outputs))
  })

/** Of all bits of a finite element, those that leave it finite and far from overflow: half its exponents, zeros, subnormals. */
const TAME = { F32: 0xbfffffff, F16: 0xbfff, BF16: 0xbfff }

/** Random bits, but often special values, and often what the input before has there; all `tame` or any. */
function fill(kernel: Kernel, inputs: readonly Uint8Array[], seed: number, isTame = false): void {
  let state = seed | 0
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0
    return (state ^ (state >>> 15)) >>> 0
  }
  for (const [i, dtype] of kernel.inputs.entries()) {
    const words = wordsOf(dtype as Narrow, inputs[i]!)
    const sign = dtype === 'F32' ? 0x80000000 : 0x8000
    const special = SPECIAL[dtype as Narrow]
    const before =
      i > 0 && kernel.inputs[i - 1] === dtype ? wordsOf(dtype as Narrow, inputs[i - 1]!) : undefined
    for (let k = 0; k < words.length; k++) {
      const kind = random() % 8
      if (kind === 0 && before) words[k] = before[k]!
      else if (kind < 3) words[k] = special[random() % special.length]! + (random() & 256 ? sign : 0)
      else words[k] = random() >>> (dtype === 'F32' ? 0 : 16)
      if (isTame) words[k]! &= TAME[dtype as Narrow]
    }
  }
}

function wordsOf(dtype: Narrow, bytes: Uint8Array): Uint32Array | Uint16Array {
  if (dtype === 'F32') return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
  return new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2)
}

/** Runs both on the inputs of `reference` and compares bytes and counts. */
function expectEqual(kernel: Kernel, reference: TileKernel, simd: TileKernel, count: number): void {
  for (const [i, tile] of simd.inputs.entries()) tile.set(reference.inputs[i]!)
  expect(simd.run(count, kernel.scalars, kernel.ends)).toEqual(
    reference.run(count, kernel.scalars, kernel.ends),
  )
  for (const [i, { dtype }] of kernel.outputs.entries()) {
    const bytes = count * (dtype === 'F32' ? 4 : 2)
    const [a, b] = [reference.outputs[i]!.subarray(0, bytes), simd.outputs[i]!.subarray(0, bytes)]
    if (Buffer.compare(a, b) !== 0) expect(b).toEqual(a)
  }
  for (const [i, tile] of simd.inputs.entries())
    expect(Buffer.compare(tile, reference.inputs[i]!), 'inputs stay').toBe(0)
}

describe('SIMD and reference', () => {
  it('agree bit for bit on any kernel, with NaN, infinities, zeros and subnormals, for any count', () => {
    const property = fc.property(
      kernelArbitrary,
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
    const [a, b, c] = [input(0), input(1), input(2)]
    const exprs: KernelExpr[] = [
      { op: 'add', args: [a, b, c] },
      { op: 'sub', args: [a, b] },
      { op: 'mul', args: [a, b] },
      { op: 'scale', by: 0.3, arg: a },
      { op: 'cast', dtype: 'F16', arg: a },
      { op: 'cast', dtype: 'BF16', arg: a },
      { op: 'ratio', num: a, den: b, guard: 1e-6 },
      { op: 'keep', arg: a, threshold: 1, tieEnd: 500 },
      { op: 'keep', arg: a, by: b, threshold: 0.5, tieEnd: 500 },
      { op: 'elect', args: [a, b, c] },
      { op: 'select', mask: a, on: b, off: c },
      { op: 'graft', cpt: a, base: b, post: c, lambda: 1, frozen: { op: 'cast', dtype: 'BF16', arg: b } },
      { op: 'elect', args: [a, b, c], by: 'count', weights: [0.5, 1, -0.5] },
      { op: 'elect', args: [a, b, c], zero: 'positive', weights: [] },
      { op: 'elect', args: [a, b, c], by: 'any' },
      { op: 'elect', args: [a, b], sum: c },
      { op: 'clamp', arg: a, to: b, by: 0.25 },
      { op: 'graft', cpt: a, base: b, post: c, lambda: 1 },
      { op: 'graft', cpt: a, base: b, post: c, lambda: 0.3 },
    ]
    for (const [i, j, k, out] of DTYPES.flatMap((i) =>
      DTYPES.flatMap((j) => DTYPES.flatMap((k) => DTYPES.map((out) => [i, j, k, out] as const))),
    )) {
      const kernel = buildKernel(
        [i, j, k],
        exprs.map((expr) => ({ expr, dtype: out })),
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
