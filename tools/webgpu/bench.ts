import { createDecoderBackend, createGpu } from '@polygraft/webgpu'
import { openDawn } from '@polygraft/webgpu/node'

/*
 * Matrix products on the machine's GPU, as the decoder's backend runs them: queued, and one read at the end. Median of the rounds. Run: npx tsx tools/webgpu/bench.ts [--quick]  (small sizes, where a CPU is the GPU)
 */

const quick = process.argv.includes('--quick')
const SIZE = quick ? 128 : 2048
const REPEATS = quick ? 2 : 20
const ROUNDS = 5

const gpu = await createGpu({ gpu: await openDawn() })
console.log(`adapter: ${gpu.name}; arithmetic ${JSON.stringify(gpu.arithmetic)}`)
const backend = createDecoderBackend(gpu)

const one = await weight('F32', 1, SIZE)

/** Milliseconds of one x W^T, rows of x together: what REPEATS more of them take. */
async function medianMs(rows: number, w: Awaited<ReturnType<typeof weight>>): Promise<number> {
  async function run(repeats: number): Promise<number> {
    const [tokens, none] = [new Uint32Array(rows), new Float32Array(0)]
    const step = backend.beginStep({ tokens, spans: [], cos: none, sin: none })
    const x = backend.embed(step, one, 1)
    await backend.read(backend.gather(x, [0]))
    const start = performance.now()
    let y = x
    for (let i = 0; i < repeats; i++) y = backend.linear({ weight: w }, x, 1)
    await backend.read(backend.gather(y, [0]))
    const ms = performance.now() - start
    backend.endStep(step)
    return ms
  }
  await run(1) // compiles
  const rounds: number[] = []
  for (let i = 0; i < ROUNDS; i++) rounds.push(((await run(REPEATS + 1)) - (await run(1))) / REPEATS)
  return rounds.sort((a, b) => a - b)[Math.floor(ROUNDS / 2)]!
}

function weight(dtype: 'F32' | 'BF16', rows: number, columns: number) {
  const read = async (begin: number, end: number) => new Uint8Array((end - begin) * (dtype === 'F32' ? 4 : 2))
  return backend.upload({ dtype, shape: [rows, columns], read })
}

for (const dtype of ['F32', 'BF16'] as const) {
  const w = await weight(dtype, SIZE, SIZE)
  for (const rows of [1, SIZE]) {
    const ms = await medianMs(rows, w)
    const gflops = (2 * rows * SIZE * SIZE) / ms / 1e6
    const gigabytes = (SIZE * SIZE * (dtype === 'F32' ? 4 : 2)) / ms / 1e6
    const rates = `${gflops.toFixed(1)} GFLOP/s, weights ${gigabytes.toFixed(1)} GB/s`
    console.log(`${dtype} ${rows} x ${SIZE} x ${SIZE}: ${ms.toFixed(3)} ms, ${rates}`)
  }
}
await backend.close()
gpu.destroy()
