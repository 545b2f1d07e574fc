import { generate, layoutOf, MAX_STEPS, type Mode, STEP, stepsPerTurn } from './_codegen.js'
import { countNonFinite } from './_non-finite.js'
import { createTiles } from './_tiles.js'
import { instantiate, simdAvailable } from './_wasm-run.js'
import { addCounts, addNonFinite, createCounts, type OutputSums } from './counts.js'
import { checkRun, type Kernel, kernelKey, sumCounts, type TileKernel } from './kernel.js'
import { referenceKernel } from './reference.js'
import { scalarKernel } from './scalar.js'

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
  const tiles = createTiles(kernel, maxElements, layout.end)
  if (!tiles) return undefined
  const { memory, inputs, outputs } = tiles
  const { buffer } = memory
  const loops = new Map<Mode, (...args: number[]) => void>()
  const loopOf = (mode: Mode) => {
    const key = `${mode} ${kernelKey(kernel)}`
    const loop = loops.get(mode) ?? instantiate(key, () => generate(kernel, mode), memory)
    loops.set(mode, loop)
    return loop
  }
  const storedScalars = new Float32Array(buffer, 0, kernel.scalars.length)
  const storedEnds = new Int32Array(buffer, kernel.scalars.length * 4, kernel.ends.length)
  const wholeTurn = STEP * stepsPerTurn(kernel, 'finite')

  /** Elements [begin, end): whole steps, or a part of one. Adds to `counts`, and says whether all that was looked at is finite. */
  function runOver(
    mode: Mode,
    begin: number,
    end: number,
    ends: ArrayLike<number>,
    counts: readonly OutputSums[],
  ): boolean {
    const elements = end - begin
    const steps = Math.ceil(elements / STEP) // the lanes beyond `end` hold anything, and are not counted
    for (let i = 0; i < storedEnds.length; i++)
      storedEnds[i] = 2 * Math.max(0, Math.min(steps * STEP, ends[i]! - begin))
    loopOf(mode)(steps, ...tiles!.addresses(begin))
    for (const [i, { counters }] of layout.outputs.entries()) {
      if (counters === undefined) continue
      const lanes = Math.min(STEP, elements)
      const same = sumLanes(buffer, counters, lanes)
      counts[i]!.changed += elements - same
      counts[i]!.swallowed += sumLanes(buffer, counters + 16, lanes) - same
    }
    return layout.outputs.every(({ largest, largestBits, notFinite }) => {
      const lanes =
        largestBits === 16 ? new Uint16Array(buffer, largest, 8) : new Uint32Array(buffer, largest, 4)
      return lanes.every((lane) => lane < notFinite)
    })
  }

  return {
    inputs,
    outputs,
    run(count, scalars, ends = []) {
      checkRun(kernel, maxElements, count, scalars, ends)
      for (let i = 0; i < storedScalars.length; i++) storedScalars[i] = scalars[i]!
      const counts = kernel.outputs.map(createCounts)
      /** Where something may not be finite: counted one by one. */
      const look = (begin: number, end: number) => {
        for (const [i, sums] of counts.entries())
          addNonFinite(sums, countNonFinite(kernel, i, inputs, outputs[i]!, begin, end))
      }
      for (let begin = 0; begin < count; begin += MAX_STEPS * STEP) {
        const end = Math.min(count, begin + MAX_STEPS * STEP)
        const whole = end - ((end - begin) % wholeTurn)
        const attempt = kernel.outputs.map(createCounts)
        const areFinite = whole === begin || runOver('finite', begin, whole, ends, attempt)
        if (areFinite) for (const [i, sums] of counts.entries()) addCounts(sums, attempt[i]!)
        const wholeSteps = end - ((end - begin) % STEP)
        for (const [from, to] of [
          [areFinite ? whole : begin, wholeSteps],
          [wholeSteps, end],
        ] as const)
          if (from < to && !runOver('exact', from, to, ends, counts)) look(from, to)
      }
      return sumCounts(counts)
    },
  }
}

/** The fastest implementation there is: SIMD, else (for F64) one element at a time, else the reference. All give the same bytes. */
export function compileKernel(kernel: Kernel, maxElements: number): TileKernel {
  return (
    simdKernel(kernel, maxElements) ??
    scalarKernel(kernel, maxElements) ??
    referenceKernel(kernel, maxElements)
  )
}

function sumLanes(memory: ArrayBuffer, at: number, lanes: number): number {
  return new Uint16Array(memory, at, lanes).reduce((sum, lane) => sum + lane, 0)
}
