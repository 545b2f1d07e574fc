import {
  BLOCK_ELEMENTS,
  digitCounter,
  encode,
  pairReducer,
  randomValues,
  statisticsReducer,
  windowCounter,
} from '@polygraft/kernels'
import { byteSize, type FloatDType } from '@polygraft/tensor'

/*
 * Nanoseconds per element of each reduction over one block that stays in the cache, one thread.
 * Run: npx tsx tools/bench/reductions.ts
 */

const ROUNDS = 60
const ROUND_MS = 4

console.log(`${'reduction'.padEnd(26)}${'reference'.padStart(10)}${'SIMD'.padStart(8)}   ns per element`)
for (const dtype of ['BF16', 'F16', 'F32'] as const) {
  print(`pair moments ${dtype}`, (implementation) => {
    const reducer = pairReducer([dtype, dtype], implementation)
    for (const [i, bytes] of reducer.inputs.entries()) fill(dtype, bytes, `${i}`)
    return () => reducer.run(BLOCK_ELEMENTS)
  })
  print(`statistics ${dtype}`, (implementation) => {
    const reducer = statisticsReducer(dtype, implementation)
    fill(dtype, reducer.inputs[0]!, '0')
    return () => reducer.run(BLOCK_ELEMENTS)
  })
}

// A radix selection has no SIMD form.
for (const dtype of ['BF16', 'F32'] as const) {
  const bytes = new Uint8Array(byteSize(dtype, BLOCK_ELEMENTS))
  fill(dtype, bytes, '0')
  const counter = digitCounter(dtype, [])
  printOne(`first digits ${dtype}`, () => counter.add(bytes))
}
print('window of 4 % F32', (implementation) => {
  const counter = windowCounter(implementation)
  fill('F32', counter.input, '0')
  return () => counter.run(BLOCK_ELEMENTS, { low: 0x3ca00000, high: 0x3ca3ffff, common: [] })
})

/** Weights as they occur: normal with deviation 0.02. */
function fill(dtype: FloatDType, bytes: Uint8Array, name: string): void {
  const values = new Float32Array(BLOCK_ELEMENTS)
  randomValues('normal', 0.02, 0, name, 0, values)
  encode(dtype, values, bytes)
}

function print(name: string, make: (implementation: 'simd' | 'reference') => () => unknown): void {
  const [reference, simd] = (['reference', 'simd'] as const).map((implementation) =>
    best(make(implementation)),
  )
  console.log(name.padEnd(26) + reference!.toFixed(2).padStart(10) + simd!.toFixed(2).padStart(8))
}

function printOne(name: string, run: () => unknown): void {
  console.log(name.padEnd(26) + best(run).toFixed(2).padStart(10))
}

/** Best of many short rounds: what the reduction does while nothing else wants the core. */
function best(run: () => unknown): number {
  let least = Number.POSITIVE_INFINITY
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now()
    let runs = 0
    for (; performance.now() - start < ROUND_MS; runs++) run()
    least = Math.min(least, ((performance.now() - start) / (runs * BLOCK_ELEMENTS)) * 1e6)
  }
  return least
}
