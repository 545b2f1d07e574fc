import { buildKernel, type Kernel, type KernelExpr, referenceKernel } from '@polygraft/kernels'
import { byteSize, type FloatDType } from '@polygraft/tensor'
import { createTileKernel, type Gpu, type TileArithmetic } from '@polygraft/webgpu'
import { type Case, check, checkSame, createRandom, type Random } from './case.js'

const DTYPES = ['F32', 'F16', 'BF16'] as const
/** Zeros, ones, the ends of the subnormals, the largest, infinities, quiet and signalling NaN; and their negatives. */
const SPECIAL = {
  F32: [0, 0x3f800000, 1, 0x7fffff, 0x800000, 0x7f7fffff, 0x7f800000, 0x7fc00000, 0x7f800001, 0x477fefff],
  F16: [0, 0x3c00, 1, 0x3ff, 0x400, 0x7bff, 0x7c00, 0x7e00, 0x7c01, 0x7fff],
  BF16: [0, 0x3f80, 1, 0x7f, 0x80, 0x7f7f, 0x7f80, 0x7fc0, 0x7f81, 0x7fff],
}
const SCALARS = [1, 0, -0, -1, 0.5, 0.1, 1e-40, 3e38, Number.POSITIVE_INFINITY, Number.NaN]
const THRESHOLDS = [0, 1, 1e-40, 0.5, 65504, 3e38, Number.POSITIVE_INFINITY]

const input = (index: number): KernelExpr => ({ op: 'input', index })
const OPERATIONS: readonly ((random: Random, arg: () => KernelExpr) => KernelExpr)[] = [
  (_, arg) => ({ op: 'add', args: [arg(), arg()] }),
  (_, arg) => ({ op: 'sub', args: [arg(), arg()] }),
  (_, arg) => ({ op: 'mul', args: [arg(), arg(), arg()] }),
  (random, arg) => ({
    op: 'elect',
    args: [arg(), arg(), arg()],
    by: random.choose(['sum', 'count', 'any']),
    ...random.choose([{}, { zero: 'positive' as const }, { sum: arg() }]),
    ...random.choose([{}, { weights: [] }, { weights: [0.5, random.choose(SCALARS), -0.5] }]),
  }),
  (_, arg) => ({ op: 'select', mask: arg(), on: arg(), off: arg() }),
  (random, arg) => ({ op: 'clamp', arg: arg(), to: arg(), by: random.choose(SCALARS) }),
  (random, arg) => ({ op: 'scale', by: random.choose(SCALARS), arg: arg() }),
  (random, arg) => ({ op: 'cast', dtype: random.choose(DTYPES), arg: arg() }),
  (random, arg) => ({ op: 'ratio', num: arg(), den: arg(), guard: random.choose(SCALARS) }),
  (random, arg) => ({
    op: 'keep',
    arg: arg(),
    ...random.choose([{}, { by: arg() }]),
    threshold: random.choose(THRESHOLDS),
    tieEnd: random.choose([-1, 0, 1, 7, 64, 1e12]),
  }),
  (random, arg) => ({
    op: 'graft',
    cpt: arg(),
    base: arg(),
    post: arg(),
    lambda: random.choose(SCALARS),
    ...random.choose([{}, { frozen: arg() }]),
  }),
]

/** Every operation at the outside of some output, with random operands. */
function randomKernel(seed: number): Kernel {
  const random = createRandom(seed)
  const inputs = Array.from({ length: 1 + random.below(4) }, () => random.choose(DTYPES))
  const expr = (depth: number): KernelExpr =>
    depth === 0 || random.below(4) === 0
      ? input(random.below(inputs.length))
      : random.choose(OPERATIONS)(random, () => expr(depth - 1))
  const first = OPERATIONS[seed % OPERATIONS.length]!(random, () => expr(1))
  return buildKernel(inputs, [
    { expr: first, dtype: random.choose(DTYPES) },
    { expr: expr(1), dtype: random.choose(DTYPES) },
  ])
}

/** Random bits, but often special values, and often what the input before has there. */
function fill(kernel: Kernel, inputs: readonly Uint8Array[], seed: number): void {
  const random = createRandom(seed)
  for (const [i, dtype] of kernel.inputs.entries()) {
    const words = wordsOf(dtype, inputs[i]!)
    const sign = dtype === 'F32' ? 0x80000000 : 0x8000
    const before = i > 0 && kernel.inputs[i - 1] === dtype ? wordsOf(dtype, inputs[i - 1]!) : undefined
    for (let k = 0; k < words.length; k++) {
      const kind = random.below(8)
      if (kind === 0 && before) words[k] = before[k]!
      else if (kind < 3)
        words[k] = random.choose(SPECIAL[dtype as 'F32']) + (random.below(2) === 1 ? sign : 0)
      else words[k] = random.bits() >>> (dtype === 'F32' ? 0 : 16)
    }
  }
}

function wordsOf(dtype: FloatDType, bytes: Uint8Array): Uint32Array | Uint16Array {
  if (dtype === 'F32') return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
  return new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2)
}

/** Runs reference and GPU on the same tile, and compares bytes and counts. */
async function compare(gpu: Gpu, kernel: Kernel, count: number, arithmetic: TileArithmetic, seed: number) {
  const tile = createTileKernel(gpu, kernel, count, arithmetic)
  check(tile !== undefined, 'a kernel')
  try {
    const reference = referenceKernel(kernel, count)
    fill(kernel, reference.inputs, seed)
    for (const [i, bytes] of reference.inputs.entries()) tile.inputs[i]!.set(bytes)
    const expected = reference.run(count, kernel.scalars, kernel.ends)
    const counts = await tile.run(count, kernel.scalars, kernel.ends)
    for (const [i, { dtype }] of kernel.outputs.entries()) {
      const size = byteSize(dtype, count)
      const [a, b] = [tile.outputs[i]!, reference.outputs[i]!].map((bytes) =>
        wordsOf(dtype, bytes.slice(0, size)),
      )
      checkSame(a!, b!, `${arithmetic}, output ${i} of ${JSON.stringify(kernel)}`)
    }
    check(JSON.stringify(counts) === JSON.stringify(expected), `counts ${JSON.stringify(counts)}`)
  } finally {
    tile.destroy()
  }
}

/** Both arithmetics where the adapter's own is exact; else the one that always is. */
function arithmeticsOf(gpu: Gpu): readonly TileArithmetic[] {
  return gpu.arithmetic.exact ? ['native', 'integer'] : ['integer']
}

const EVERY_OPERATION: readonly KernelExpr[] = (() => {
  const [a, b, c] = [input(0), input(1), input(2)]
  return [
    { op: 'add', args: [a, b, c] },
    { op: 'sub', args: [a, b] },
    { op: 'mul', args: [a, b] },
    { op: 'scale', by: 0.3, arg: a },
    { op: 'cast', dtype: 'F16', arg: a },
    { op: 'cast', dtype: 'BF16', arg: a },
    { op: 'ratio', num: a, den: b, guard: 1e-6 },
    { op: 'keep', arg: a, threshold: 1, tieEnd: 500 },
    { op: 'keep', arg: a, by: b, threshold: 0.5, tieEnd: 11_000 },
    { op: 'select', mask: a, on: b, off: c },
    { op: 'clamp', arg: a, to: b, by: 0.5 },
    { op: 'elect', args: [a, b, c] },
    { op: 'elect', args: [a, b, c], by: 'count', zero: 'positive', weights: [1, 0.5, -1] },
    { op: 'elect', args: [a, b, c], by: 'any', weights: [] },
    { op: 'elect', args: [a, b], sum: c },
    { op: 'graft', cpt: a, base: b, post: c, lambda: 1 },
    { op: 'graft', cpt: a, base: b, post: c, lambda: 0.3 },
    { op: 'graft', cpt: a, base: b, post: c, lambda: 1, frozen: c },
  ]
})()

/** So many outputs at a time: SwiftShader takes more than twice as long for twice the code. */
const GROUP = 3

export const TILE_CASES: readonly Case[] = [
  {
    name: 'tile kernels: every operation',
    async run(gpu) {
      for (let i = 0; i < EVERY_OPERATION.length; i += GROUP) {
        const [first, second, third] = [0, 1, 2].map((k) => DTYPES[(i / GROUP + k) % 3]!)
        const outputs = EVERY_OPERATION.slice(i, i + GROUP).map((expr, k) => ({ expr, dtype: DTYPES[k]! }))
        const kernel = buildKernel([first!, second!, third!], outputs)
        for (const arithmetic of arithmeticsOf(gpu)) await compare(gpu, kernel, 20_001, arithmetic, 7 + i)
      }
    },
  },
  {
    name: 'tile kernels: any expression, dtype and count gives the bytes and counts of the reference',
    async run(gpu) {
      const arithmetics = arithmeticsOf(gpu)
      for (let seed = 0; seed < OPERATIONS.length; seed++)
        await compare(
          gpu,
          randomKernel(seed),
          1 + ((seed * 37) % 700),
          arithmetics[seed % arithmetics.length]!,
          seed,
        )
    },
  },
  ...(['BF16', 'F16'] as const).map(
    (dtype): Case => ({
      name: `tile kernels: all 65,536 patterns of ${dtype}`,
      async run(gpu) {
        const exprs: KernelExpr[] = [
          { op: 'scale', by: 0.75, arg: input(0) },
          { op: 'scale', by: 1e-39, arg: input(0) },
          { op: 'ratio', num: { op: 'scale', by: 1 / 3, arg: input(0) }, den: input(0), guard: 0 },
        ]
        const outputs = exprs.flatMap((expr) => DTYPES.map((to) => ({ expr, dtype: to })))
        const kernel = buildKernel([dtype], outputs)
        for (const arithmetic of arithmeticsOf(gpu)) await compareAll(gpu, kernel, arithmetic)
      },
    }),
  ),
  {
    name: 'tile kernels: a tile beyond the limit is computed in pieces, with ends counted from its start',
    async run(gpu) {
      const small: Gpu = { ...gpu, features: gpu.features, arithmetic: gpu.arithmetic, maxBindingBytes: 4096 }
      const args = [input(0), { op: 'keep', arg: input(1), threshold: 1, tieEnd: 3333 } as const]
      const kernel = buildKernel(
        ['BF16', 'F32', 'BF16'],
        [
          { expr: { op: 'add', args }, dtype: 'BF16' },
          { expr: { op: 'graft', cpt: input(0), base: input(2), post: input(1), lambda: 1 }, dtype: 'F32' },
        ],
      )
      await compare(small, kernel, 5003, 'integer', 3)
    },
  },
  {
    name: 'tile kernels: F64 is not computed in something else',
    async run(gpu) {
      check(
        createTileKernel(gpu, buildKernel(['F64'], [{ expr: input(0), dtype: 'F32' }]), 4) === undefined,
        'F64',
      )
    },
  },
]

async function compareAll(gpu: Gpu, kernel: Kernel, arithmetic: TileArithmetic) {
  const tile = createTileKernel(gpu, kernel, 0x10000, arithmetic)!
  try {
    const reference = referenceKernel(kernel, 0x10000)
    for (const bytes of [tile.inputs[0]!, reference.inputs[0]!])
      wordsOf('BF16', bytes).set(Uint16Array.from({ length: 0x10000 }, (_, i) => i))
    reference.run(0x10000, kernel.scalars)
    await tile.run(0x10000, kernel.scalars)
    for (const [i, { dtype }] of kernel.outputs.entries())
      checkSame(wordsOf(dtype, tile.outputs[i]!), wordsOf(dtype, reference.outputs[i]!), `output ${i}`)
  } finally {
    tile.destroy()
  }
}
