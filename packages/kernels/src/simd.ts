import { byteSize } from '@polygraft/tensor'
import { generate, layoutOf, MAX_TURNS, STEP } from './_codegen.js'
import { createMemory, instantiate, simdAvailable } from './_wasm-run.js'
import { checkRun, type Kernel, kernelKey, sumCounts, type TileKernel } from './kernel.js'
import { referenceKernel } from './reference.js'

/** Tiles start 64-byte aligned, and so far apart that equal indices of two tiles differ in their lower 12 address bits. */
const TILE_ALIGN = 64
const TILE_STAGGER = 320

/**
 * The kernel as one fused WebAssembly SIMD loop over tiles in a memory of its own, of which `inputs` and `outputs` are
 * views (read files straight into them). Same bytes and counts as `referenceKernel`. Compiled once per structure.
 * @param maxElements tile size, in elements. Memory: the tiles, rounded up to 64 KiB.
 * @returns undefined without SIMD, where an input or output is F64, or when the tiles exceed 4 GiB.
 */
export function simdKernel(kernel: Kernel, maxElements: number): TileKernel | undefined {
  const dtypes = [...kernel.inputs, ...kernel.outputs.map((output) => output.dtype)]
  if (!simdAvailable() || dtypes.includes('F64')) return undefined
  const layout = layoutOf(kernel)
  const bases: number[] = []
  let end = layout.end
  for (const dtype of dtypes) {
    bases.push(Math.ceil(end / TILE_ALIGN) * TILE_ALIGN)
    end = bases.at(-1)! + byteSize(dtype, Math.ceil(maxElements / STEP) * STEP) + TILE_STAGGER
  }
  const memory = createMemory(end)
  if (!memory) return undefined
  const run = instantiate(kernelKey(kernel), () => generate(kernel), memory)
  const views = dtypes.map(
    (dtype, i) => new Uint8Array(memory.buffer, bases[i], byteSize(dtype, maxElements)),
  )

  const storedEnds = new Int32Array(memory.buffer, kernel.scalars.length * 4, kernel.ends.length)

  /** `turns` turns from element `begin` on. */
  function runFrom(begin: number, turns: number, ends: ArrayLike<number>): void {
    for (let i = 0; i < storedEnds.length; i++)
      storedEnds[i] = 2 * Math.max(0, Math.min(turns * STEP, ends[i]! - begin))
    run(turns, ...dtypes.map((dtype, i) => bases[i]! + byteSize(dtype, begin)))
  }

  return {
    inputs: views.slice(0, kernel.inputs.length),
    outputs: views.slice(kernel.inputs.length),
    run(count, scalars, ends = []) {
      checkRun(kernel, maxElements, count, scalars, ends)
      const stored = new Float32Array(memory.buffer, 0, kernel.scalars.length)
      for (let i = 0; i < stored.length; i++) stored[i] = scalars[i]!
      const counts = layout.counters.map(() => ({ changed: 0, swallowed: 0 }))
      const add = (elements: number, lanes: number) => {
        for (const [i, at] of layout.counters.entries()) {
          if (at === undefined) continue
          counts[i]!.changed += elements - sumLanes(memory.buffer, at, lanes)
          counts[i]!.swallowed += sumLanes(memory.buffer, at + 16, lanes)
        }
      }
      const whole = count - (count % STEP)
      for (let begin = 0; begin < whole; begin += MAX_TURNS * STEP) {
        const turns = Math.min(MAX_TURNS, (whole - begin) / STEP)
        runFrom(begin, turns, ends)
        add(turns * STEP, STEP)
      }
      if (whole < count) {
        runFrom(whole, 1, ends) // a whole turn: the lanes beyond `count` hold anything, and are not counted
        add(count - whole, count - whole)
      }
      return sumCounts(counts)
    },
  }
}

/** The fastest implementation there is: SIMD, else the reference. Both give the same bytes. */
export function compileKernel(kernel: Kernel, maxElements: number): TileKernel {
  return simdKernel(kernel, maxElements) ?? referenceKernel(kernel, maxElements)
}

function sumLanes(memory: ArrayBuffer, at: number, lanes: number): number {
  return new Uint16Array(memory, at, lanes).reduce((sum, lane) => sum + lane, 0)
}
