import type { Kernel, TileKernel } from './kernel.js'
import { referenceKernel } from './reference.js'

/** Whether this engine runs WebAssembly SIMD. */
export function simdAvailable(): boolean {
  return false
}

/** The kernel as one fused WebAssembly SIMD loop; undefined without SIMD or where an input or output is F64. */
export function simdKernel(_kernel: Kernel, _maxElements: number): TileKernel | undefined {
  return undefined
}

/** The fastest implementation there is: SIMD, else the reference. Both give the same bytes. */
export function compileKernel(kernel: Kernel, maxElements: number): TileKernel {
  return simdKernel(kernel, maxElements) ?? referenceKernel(kernel, maxElements)
}
