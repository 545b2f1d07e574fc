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
    const made = loops.get(mode)
    if (made) return made
    const loop = instantiate(`${mode} ${kernelKey(kernel)}`, () => generate(kernel, mode), memory)
    loops.set(mode, loop)
    return loop
  }
  const storedScalars = new Float32Array(buffer, 0, kernel.scalars.length)
  const storedEnds = new Int32Array(buffer, kernel.scalars.length * 4, kernel.ends.length)
  const wholeTurn = STEP * stepsPerTurn(kernel, 'finite')

  const left = layout.outputs.map((output) => viewsOf(buffer, output))

  // What runs for every tile is plain loops: iterators and closures cost V8 more to optimise than they take to run.

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
    let areFinite = true
    for (let i = 0; i < left.length; i++) {
      const { same, stored, largest, notFinite } = left[i]!
      for (let lane = 0; lane < largest.length; lane++) if (largest[lane]! >= notFinite) areFinite = false
      if (!same || !stored) continue
      const lanes = Math.min(STEP, elements)
      const unchanged = sumLanes(same, lanes)
      counts[i]!.changed += elements - unchanged
      counts[i]!.swallowed += sumLanes(stored, lanes) - unchanged
    }
    return areFinite
  }

  /** As defined, whatever the elements are; what is not finite is counted one by one. */
  function runExact(
    begin: number,
    end: number,
    ends: ArrayLike<number>,
    counts: readonly OutputSums[],
  ): void {
    if (begin === end || runOver('exact', begin, end, ends, counts)) return
    for (const [i, sums] of counts.entries())
      addNonFinite(sums, countNonFinite(kernel, i, inputs, outputs[i]!, begin, end))
  }

  function runFinite(
    begin: number,
    end: number,
    ends: ArrayLike<number>,
    counts: readonly OutputSums[],
  ): boolean {
    if (begin === end) return true
    const attempt = kernel.outputs.map(createCounts)
    if (!runOver('finite', begin, end, ends, attempt)) return false
    for (let i = 0; i < attempt.length; i++) addCounts(counts[i]!, attempt[i]!)
    return true
  }

  return {
    inputs,
    outputs,
    run(count, scalars, ends = []) {
      checkRun(kernel, maxElements, count, scalars, ends)
      for (let i = 0; i < storedScalars.length; i++) storedScalars[i] = scalars[i]!
      const counts = kernel.outputs.map(createCounts)
      for (let begin = 0; begin < count; begin += MAX_STEPS * STEP) {
        const end = Math.min(count, begin + MAX_STEPS * STEP)
        const whole = end - ((end - begin) % wholeTurn)
        const from = runFinite(begin, whole, ends, counts) ? whole : begin
        const wholeSteps = end - ((end - begin) % STEP)
        runExact(from, wholeSteps, ends, counts)
        runExact(wholeSteps, end, ends, counts)
      }
      return sumCounts(counts)
    },
  }
}

/** Where a call of the loop leaves what it saw of an output. */
function viewsOf(buffer: ArrayBuffer, output: ReturnType<typeof layoutOf>['outputs'][number]) {
  const { counters, largest, largestBits, notFinite } = output
  const counterAt = (by: number) =>
    counters === undefined ? undefined : new Uint16Array(buffer, counters + by, STEP)
  return {
    same: counterAt(0),
    stored: counterAt(16),
    largest: largestBits === 16 ? new Uint16Array(buffer, largest, 8) : new Uint32Array(buffer, largest, 4),
    notFinite,
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

function sumLanes(counter: Uint16Array, lanes: number): number {
  let sum = 0
  for (let lane = 0; lane < lanes; lane++) sum += counter[lane]!
  return sum
}
