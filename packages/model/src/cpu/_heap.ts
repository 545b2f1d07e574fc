import { growKernelMemory, type KernelMemory } from '@polygraft/kernels'
import { ModelError } from '@polygraft/tensor'

/** Blocks of a memory that grows as they are asked for. Addresses and sizes are bytes, multiples of 64. */
export interface Heap {
  /** Its contents are undefined. @throws ModelError "out-of-memory". */
  allocate(bytes: number): number
  free(address: number): void
}

const ALIGN = 64
const MAX_BYTES = 2 ** 32

/** Everything from `begin` on is the heap's. First fit; neighbours that are free become one. */
export function createHeap(memory: KernelMemory, begin: number): Heap {
  const sizes = new Map<number, number>()
  /** By address. */
  const holes: { address: number; size: number }[] = []
  let end = begin

  function extend(bytes: number): number {
    const last = holes.at(-1)
    const address = last && last.address + last.size === end ? holes.pop()!.address : end
    if (address + bytes > MAX_BYTES || !growKernelMemory(memory, address + bytes))
      throw new ModelError({
        code: 'out-of-memory',
        message: 'The model does not fit into the memory of the CPU backend',
        expected: `at most ${MAX_BYTES} bytes for weights, caches and activations`,
        received: `${address + bytes} bytes so far`,
        next: 'Take a smaller model, a shorter context or a smaller batch, or another device.',
      })
    end = address + bytes
    return address
  }

  return {
    allocate(bytes) {
      const size = Math.max(ALIGN, Math.ceil(bytes / ALIGN) * ALIGN)
      const index = holes.findIndex((hole) => hole.size >= size)
      const hole = holes[index]
      const address = hole ? hole.address : extend(size)
      if (hole) {
        hole.address += size
        hole.size -= size
        if (hole.size === 0) holes.splice(index, 1)
      }
      sizes.set(address, size)
      return address
    },
    free(address) {
      const size = sizes.get(address)!
      sizes.delete(address)
      let at = holes.findIndex((hole) => hole.address > address)
      if (at < 0) at = holes.length
      holes.splice(at, 0, { address, size })
      for (const i of [at, at - 1]) {
        const [left, right] = [holes[i], holes[i + 1]]
        if (!left || !right || left.address + left.size !== right.address) continue
        left.size += right.size
        holes.splice(i + 1, 1)
      }
    },
  }
}
