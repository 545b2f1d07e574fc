import { compileKernel, type Kernel, kernelKey, referenceKernel, type TileKernel } from '@polygraft/kernels'

export type Kernels = 'simd' | 'reference'

/** Kernels with buffers, lent one at a time: a nested expression of equal structure must not share its parent's. */
export interface KernelPool {
  take(kernel: Kernel): TileKernel
  give(kernel: Kernel, tile: TileKernel): void
}

export function kernelPool(kernels: Kernels, maxElements: number): KernelPool {
  const free = new Map<string, TileKernel[]>()
  const keys = new WeakMap<Kernel, string>()
  const keyOf = (kernel: Kernel) => {
    const key = keys.get(kernel) ?? kernelKey(kernel)
    keys.set(kernel, key)
    return key
  }
  const create = (kernel: Kernel) =>
    kernels === 'simd' ? compileKernel(kernel, maxElements) : referenceKernel(kernel, maxElements)
  return {
    take: (kernel) => free.get(keyOf(kernel))?.pop() ?? create(kernel),
    give(kernel, tile) {
      const key = keyOf(kernel)
      const idle = free.get(key)
      if (idle) idle.push(tile)
      else free.set(key, [tile])
    },
  }
}
