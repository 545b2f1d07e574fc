import { countNonFinite } from './_non-finite.js'
import { COUNTERS, generateScalar, scalarLayout } from './_scalar-codegen.js'
import { createTiles } from './_tiles.js'
import { instantiate, wasmAvailable } from './_wasm-run.js'
import { addNonFinite, createCounts } from './counts.js'
import { checkRun, type Kernel, kernelKey, sumCounts, type TileKernel } from './kernel.js'

/**
 * The kernel as one fused WebAssembly loop over single elements, for any dtypes: what F64 takes, since SIMD has only two of them in
 * a register. Same bytes and counts as `referenceKernel`. Compiled once per structure.
 * @param maxElements tile size, in elements. Memory: the tiles, rounded up to 64 KiB.
 * @returns undefined without WebAssembly, or when the tiles exceed 4 GiB.
 */
export function scalarKernel(kernel: Kernel, maxElements: number): TileKernel | undefined {
  const layout = scalarLayout(kernel)
  const tiles = wasmAvailable() ? createTiles(kernel, maxElements, layout.end) : undefined
  if (!tiles) return undefined
  const { memory, inputs, outputs } = tiles
  const loop = instantiate(`scalar ${kernelKey(kernel)}`, () => generateScalar(kernel), memory)
  const scalarsStored = new Float64Array(memory.buffer, 0, kernel.scalars.length)
  const endsStored = new Int32Array(memory.buffer, layout.ends, kernel.ends.length)
  const counters = new Int32Array(memory.buffer, layout.counters, outputs.length * COUNTERS.end)
  const addresses = tiles.addresses(0)
  return {
    inputs,
    outputs,
    run(count, scalars, ends = []) {
      checkRun(kernel, maxElements, count, scalars, ends)
      const counts = kernel.outputs.map(createCounts)
      if (count === 0) return sumCounts(counts)
      for (let i = 0; i < scalarsStored.length; i++) scalarsStored[i] = scalars[i]!
      for (let i = 0; i < endsStored.length; i++) endsStored[i] = Math.max(0, Math.min(count, ends[i]!))
      loop(count, ...addresses)
      for (const [i, sums] of counts.entries()) {
        const at = i * COUNTERS.end
        sums.changed = counters[at + COUNTERS.changed]!
        sums.swallowed = counters[at + COUNTERS.swallowed]!
        if (counters[at + COUNTERS.notFinite]! > 0)
          addNonFinite(sums, countNonFinite(kernel, i, inputs, outputs[i]!, 0, count))
      }
      return sumCounts(counts)
    },
  }
}
