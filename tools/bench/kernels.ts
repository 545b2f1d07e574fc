import {
  buildKernel,
  compileKernel,
  encode,
  type GraftCounts,
  type Kernel,
  type KernelExpr,
  type KernelOutput,
  randomMask,
  randomValues,
  referenceKernel,
  type TileKernel,
} from '@polygraft/kernels'
import { byteSize, type FloatDType } from '@polygraft/tensor'

/*
 * Bytes in and out per second of each kernel, one thread, on tiles that stay in the cache; and of copying the same
 * bytes. Run: npx tsx tools/bench/kernels.ts
 */

const ELEMENTS = 64 * 1024
const ROUNDS = 100
const ROUND_MS = 4

const input = (index: number): KernelExpr => ({ op: 'input', index })
const graft = (cpt: number, lambda: number): KernelExpr => ({
  op: 'graft',
  cpt: input(cpt),
  base: input(0),
  post: input(1),
  lambda,
})

const cases: readonly (readonly [string, Kernel])[] = [
  ...(['BF16', 'F16', 'F32', 'F64'] as const).flatMap(
    (dtype) =>
      [
        [`graft ${dtype}`, kernelOf(3, dtype, [graft(2, 1)])],
        [
          `graft x8 ${dtype}`,
          kernelOf(
            10,
            dtype,
            Array.from({ length: 8 }, (_, e) => graft(2 + e, 1)),
          ),
        ],
        [`add ${dtype}`, kernelOf(2, dtype, [{ op: 'add', args: [input(0), input(1)] }])],
        [`scaled sum ${dtype}`, kernelOf(4, dtype, [scaledSum(4)])],
        [`TIES of 2 ${dtype}`, kernelOf(3, dtype, [tiesOf(2)])],
      ] as const,
  ),
  [
    'delta BF16 to F32',
    buildKernel(['BF16', 'BF16'], [{ expr: { op: 'sub', args: [input(0), input(1)] }, dtype: 'F32' }]),
  ],
  ['cast F32 to BF16', buildKernel(['F32'], [{ expr: input(0), dtype: 'BF16' }])],
  ['cast F32 to F16', buildKernel(['F32'], [{ expr: input(0), dtype: 'F16' }])],
]

console.log(
  `${'kernel'.padEnd(20)}${'reference'.padStart(10)}${'compiled'.padStart(10)}${'copy'.padStart(10)}   GB/s`,
)
for (const [name, kernel] of cases) {
  const bytes = [...kernel.inputs, ...kernel.outputs.map((output) => output.dtype)].reduce(
    (sum, dtype) => sum + byteSize(dtype, ELEMENTS),
    0,
  )
  const rates = [
    rate(bytes, runOf(kernel, referenceKernel(kernel, ELEMENTS))),
    rate(bytes, runOf(kernel, compileKernel(kernel, ELEMENTS))),
    rate(bytes, copyOf(bytes / 2)),
  ]
  console.log(name.padEnd(20) + rates.map((gb) => gb.toFixed(2).padStart(10)).join(''))
}

const mask = new Uint8Array(ELEMENTS * 2)
const maskRates = (['reference', 'simd'] as const).map((implementation) =>
  rate(mask.length, () => randomMask(0.5, 0, 'mask', 0, mask, implementation)),
)
const copyRate = rate(mask.length, copyOf(mask.length / 2))
console.log(
  'mask BF16'.padEnd(20) + [...maskRates, copyRate].map((gb) => gb.toFixed(2).padStart(10)).join(''),
)

function kernelOf(inputs: number, dtype: FloatDType, exprs: readonly KernelExpr[]): Kernel {
  const outputs: KernelOutput[] = exprs.map((expr) => ({ expr, dtype }))
  return buildKernel(Array<FloatDType>(inputs).fill(dtype), outputs)
}

function scaledSum(inputs: number): KernelExpr {
  const terms = Array.from(
    { length: inputs },
    (_, i): KernelExpr => ({ op: 'scale', by: 1 / (i + 2), arg: input(i) }),
  )
  return { op: 'add', args: terms }
}

/** base + the elected mean of the others' largest differences from it. */
function tiesOf(models: number): KernelExpr {
  const args = Array.from({ length: models }, (_, i): KernelExpr => {
    const delta: KernelExpr = { op: 'sub', args: [input(i + 1), input(0)] }
    return { op: 'keep', arg: delta, threshold: 0.001, tieEnd: 0 }
  })
  return { op: 'add', args: [input(0), { op: 'elect', args }] }
}

/** Weights as they occur: base normal with deviation 0.02, the others near it, a fifth of the elements equal to it. */
function runOf(kernel: Kernel, tile: TileKernel): () => GraftCounts {
  const base = new Float32Array(ELEMENTS)
  const noise = new Float32Array(ELEMENTS)
  randomValues('normal', 0.02, 0, 'base', 0, base)
  for (const [i, dtype] of kernel.inputs.entries()) {
    randomValues('normal', 0.001, 0, `noise ${i}`, 0, noise)
    const values = base.map((value, k) => (i === 0 || k % 5 === 0 ? value : value + noise[k]!))
    encode(dtype, values, tile.inputs[i]!)
  }
  return () => tile.run(ELEMENTS, kernel.scalars, kernel.ends)
}

function copyOf(bytes: number): () => void {
  const from = new Uint8Array(bytes)
  const to = new Uint8Array(bytes)
  return () => to.set(from)
}

/** Best of many short rounds, in GB/s: what the kernel does while nothing else wants the core. */
function rate(bytes: number, run: () => unknown): number {
  let best = 0
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now()
    let runs = 0
    for (; performance.now() - start < ROUND_MS; runs++) run()
    best = Math.max(best, (runs * bytes) / (performance.now() - start) / 1e6)
  }
  return best
}
