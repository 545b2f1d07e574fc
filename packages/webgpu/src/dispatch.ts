import type { GpuKernel } from './define-kernel.js'
import type { Dispatch, GpuBuffer } from './gpu.js'

/** A run of `kernel` on these buffers. Every binding and every parameter must be given; overrides may be. */
export function dispatch<B extends string, P extends string, O extends string>(
  kernel: GpuKernel<B, P, O>,
  buffers: Readonly<Record<B, GpuBuffer>>,
  params: Readonly<Record<P, number>>,
  overrides?: Readonly<Partial<Record<O, number>>>,
): Dispatch {
  return {
    kernel: kernel as unknown as GpuKernel,
    buffers,
    params,
    overrides: overrides as Record<O, number>,
  }
}
