import {
  createKernelMemory,
  createMatmul,
  encode,
  MATMUL_SCRATCH_BYTES,
  type PanelDType,
  packedBytes,
  randomValues,
} from '@polygraft/kernels'

/*
 * GFLOP per CPU second of matrix products, one thread; and for one row GB/s of weights. Run: npx tsx tools/bench/matmul.ts
 */

const ROUNDS = 7
const ROUND_MS = 60
const [N, K] = [1536, 1536]

const weights = new Float32Array(N * K)
randomValues('normal', 0.02, 0, 'weights', 0, weights)

const forms = (['NT', 'NN', 'TN'] as const).map((form) => [form, (m: number) => product(form, m)] as const)
const packed = (['F32', 'BF16', 'F16'] as const).map(
  (dtype) => [`packed ${dtype}`, (m: number) => packedProduct(dtype, m)] as const,
)

console.log(
  `c [M, ${N}], k ${K}`.padEnd(24) +
    ['M 512', 'M 64', 'M 8', 'M 2', 'M 1'].map((m) => m.padStart(9)).join(''),
)
for (const [name, make] of [...packed, ...forms]) {
  const rates = [512, 64, 8, 2, 1].map((m) =>
    ((2 * m * N * K) / secondsOf(make(m)) / 1e9).toFixed(1).padStart(9),
  )
  console.log(`${name.padEnd(15)} GFLOP/s ${rates.join('')}`)
}

function place(dtype: PanelDType, m: number, bBytes: number) {
  const a = MATMUL_SCRATCH_BYTES
  const b = a + m * K * 4
  const c = b + bBytes
  const memory = createKernelMemory(c + m * N * 4)
  randomValues('normal', 1, 0, 'a', 0, new Float32Array(memory.buffer, a, m * K))
  encode(dtype, weights, new Uint8Array(memory.buffer, b, weights.length * (dtype === 'F32' ? 4 : 2)))
  return { a, b, c, matmul: createMatmul(memory, 0) }
}

function product(form: 'NT' | 'NN' | 'TN', m: number): () => void {
  const { matmul, ...addresses } = place('F32', m, N * K * 4)
  return () => matmul.multiply({ form, m, n: N, k: K, ...addresses })
}

function packedProduct(dtype: PanelDType, m: number): () => void {
  const { matmul, ...addresses } = place(dtype, m, packedBytes(dtype, N, K))
  return () => matmul.multiplyPacked({ m, n: N, k: K, dtype, ...addresses })
}

/** CPU time of one run: the median of several rounds. */
function secondsOf(run: () => void): number {
  const times = Array.from({ length: ROUNDS }, () => {
    const wall = performance.now()
    const cpu = process.cpuUsage()
    let runs = 0
    for (; performance.now() - wall < ROUND_MS; runs++) run()
    const { user, system } = process.cpuUsage(cpu)
    return (user + system) / 1e6 / runs
  })
  return times.toSorted((x, y) => x - y)[ROUNDS >> 1]!
}
