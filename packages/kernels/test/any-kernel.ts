import { buildKernel, type Kernel, type KernelExpr, type TileKernel } from '@polygraft/kernels'
import { byteSize, type FloatDType } from '@polygraft/tensor'
import fc from 'fast-check'
import { expect } from 'vitest'

/** Zeros, ones, the ends of the subnormals, the largest, infinities, quiet and signalling NaN; and their negatives. */
export const SPECIAL = {
  F32: [
    0, 0x3f800000, 1, 0x7fffff, 0x800000, 0x7f7fffff, 0x7f800000, 0x7fc00000, 0x7f800001, 0x7fffffff,
    0x477fefff,
  ],
  F16: [0, 0x3c00, 1, 0x3ff, 0x400, 0x7bff, 0x7c00, 0x7e00, 0x7c01, 0x7fff],
  BF16: [0, 0x3f80, 1, 0x7f, 0x80, 0x7f7f, 0x7f80, 0x7fc0, 0x7f81, 0x7fff],
  /** And ties of rounding to the others, their overflow and their smallest. */
  F64: [
    ...[0n, 0x3ff0000000000000n, 1n, 0xfffffffffffffn, 0x10000000000000n, 0x7fefffffffffffffn],
    ...[0x7ff0000000000000n, 0x7ff8000000000000n, 0x7ff0000000000001n, 0x7fffffffffffffffn],
    ...[1 + 2 ** -24, 1 + 2 ** -8, 1 + 2 ** -11, 1 + 2 ** -8 + 2 ** -40, 1 + 2 ** -11 - 2 ** -50].map(bitsOf),
    ...[2 ** 128, 2 ** 128 - 2 ** 103, 65520, 65519.99999, 2 ** -149, 2 ** -150, 2 ** -25, 2 ** -1070].map(
      bitsOf,
    ),
  ],
}

function bitsOf(value: number): bigint {
  return new BigUint64Array(Float64Array.of(value).buffer)[0]!
}

const SCALARS = [1, 0, -0, -1, 0.5, 0.1, 1e-40, 3e38, Number.POSITIVE_INFINITY, Number.NaN]

export const input = (index: number): KernelExpr => ({ op: 'input', index })
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
/** Kernels over inputs and outputs of these dtypes. */
export const kernels = (dtypes: readonly FloatDType[]): fc.Arbitrary<Kernel> =>
  fc.array(fc.constantFrom(...dtypes), { minLength: 1, maxLength: 4 }).chain((inputs) => {
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
          fc.record({ op: fc.constant('cast' as const), dtype: fc.constantFrom(...dtypes), arg: e }),
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
    const output = fc.record({ expr, dtype: fc.constantFrom(...dtypes) })
    return fc.array(output, { minLength: 1, maxLength: 3 }).map((outputs) => buildKernel(inputs, outputs))
  })

/** Of all bits of a finite element, those that leave it finite and far from overflow: half its exponents, zeros, subnormals. */
export const TAME = { F32: 0xbfffffff, F16: 0xbfff, BF16: 0xbfff, F64: 0xbfffffffffffffffn }

/** Random bits, but often special values, and often what the input before has there; all `tame` or any. */
export function fill(kernel: Kernel, inputs: readonly Uint8Array[], seed: number, isTame = false): void {
  let state = seed | 0
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0
    return (state ^ (state >>> 15)) >>> 0
  }
  for (const [i, dtype] of kernel.inputs.entries()) {
    const before = i > 0 && kernel.inputs[i - 1] === dtype ? inputs[i - 1] : undefined
    if (dtype === 'F64') fillWide(inputs[i]!, before, random, isTame)
    else fillNarrow(dtype, inputs[i]!, before, random, isTame)
  }
}

type Narrow = Exclude<FloatDType, 'F64'>

function fillNarrow(
  dtype: Narrow,
  bytes: Uint8Array,
  bytesBefore: Uint8Array | undefined,
  random: () => number,
  isTame: boolean,
): void {
  const words = wordsOf(dtype, bytes)
  const sign = dtype === 'F32' ? 0x80000000 : 0x8000
  const special = SPECIAL[dtype]
  const before = bytesBefore && wordsOf(dtype, bytesBefore)
  for (let k = 0; k < words.length; k++) {
    const kind = random() % 8
    if (kind === 0 && before) words[k] = before[k]!
    else if (kind < 3) words[k] = special[random() % special.length]! + (random() & 256 ? sign : 0)
    else words[k] = random() >>> (dtype === 'F32' ? 0 : 16)
    if (isTame) words[k]! &= TAME[dtype]
  }
}

/** Of F64, half the random ones lie where an F32 has values. */
function fillWide(
  bytes: Uint8Array,
  bytesBefore: Uint8Array | undefined,
  random: () => number,
  isTame: boolean,
): void {
  const words = doubleWordsOf(bytes)
  const before = bytesBefore && doubleWordsOf(bytesBefore)
  const sign = 1n << 63n
  for (let k = 0; k < words.length; k++) {
    const kind = random() % 8
    if (kind === 0 && before) words[k] = before[k]!
    else if (kind < 3) words[k] = SPECIAL.F64[random() % SPECIAL.F64.length]! + (random() & 256 ? sign : 0n)
    else if (kind < 6) words[k] = bitsOf((random() / 2 ** 31 - 1) * 2 ** ((random() % 300) - 150))
    else words[k] = (BigInt(random()) << 32n) | BigInt(random())
    if (isTame) words[k]! &= TAME.F64
  }
}

export function wordsOf(dtype: Narrow, bytes: Uint8Array): Uint32Array | Uint16Array {
  if (dtype === 'F32') return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
  return new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2)
}

function doubleWordsOf(bytes: Uint8Array): BigUint64Array {
  return new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8)
}

/** Runs both on the inputs of `reference` and compares bytes and counts. */
export function expectEqual(kernel: Kernel, reference: TileKernel, other: TileKernel, count: number): void {
  for (const [i, tile] of other.inputs.entries()) tile.set(reference.inputs[i]!)
  expect(other.run(count, kernel.scalars, kernel.ends)).toEqual(
    reference.run(count, kernel.scalars, kernel.ends),
  )
  for (const [i, { dtype }] of kernel.outputs.entries()) {
    const bytes = byteSize(dtype, count)
    const [a, b] = [reference.outputs[i]!.subarray(0, bytes), other.outputs[i]!.subarray(0, bytes)]
    if (Buffer.compare(a, b) !== 0) expect(b).toEqual(a)
  }
  for (const [i, tile] of other.inputs.entries())
    expect(Buffer.compare(tile, reference.inputs[i]!), 'inputs stay').toBe(0)
}

const [a, b, c] = [input(0), input(1), input(2)]
/** Every operation, on three inputs. */
export const EVERY_OPERATION: readonly KernelExpr[] = [
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
