import { createSoloTeam, type Team } from '@polygraft/engine'
import { growKernelMemory, type KernelMemory } from '@polygraft/kernels'
import { ModelError } from '@polygraft/tensor'
import { teamCompute } from './_team-compute.js'
import type { Compute } from './compute.js'
import type { Floats } from './matmul.js'
import type { Tensors } from './parameters.js'
import { plainCompute } from './plain-compute.js'

/** The memory that training computes in, and what computes there. What is released is used again. */
export interface Workspace {
  /** Operands lie in this workspace. */
  readonly compute: Compute
  /** Undefined contents. The view stays valid while the memory grows. */
  allocate(length: number): Floats
  /** The same for indices. */
  allocateWords(length: number): Int32Array
  /** How far the memory is used; `release` of it frees all that was allocated since. */
  mark(): number
  release(mark: number): void
  /** Unit: bytes. */
  readonly peakBytes: number
}

const ALIGNMENT = 16
const GROWTH_BYTES = 16 * 2 ** 20

/**
 * A workspace in F32 with SIMD loops and products, up to 4 GiB, on the threads of `team` (`createTeam` of `@polygraft/engine`; the calling
 * thread alone where it is left out). The bits of a result do not depend on how many there are. A team serves one workspace.
 * @throws ModelError "out-of-memory" once the 4 GiB are spent.
 */
export function createWorkspace(team: Team = createSoloTeam()): Workspace {
  const { memory } = team
  const begin = team.begin
  let used = begin
  let peakBytes = 0
  const place = (length: number) => {
    const address = used
    const end = address + Math.ceil((length * 4) / ALIGNMENT) * ALIGNMENT
    if (end > memory.buffer.byteLength) grow(memory, end)
    used = end
    peakBytes = Math.max(peakBytes, end - begin)
    return address
  }
  const allocate = (length: number) => {
    const address = place(length)
    return new Float32Array(memory.buffer, address, length)
  }
  const mark = () => used
  const release = (to: number) => {
    used = to
  }
  return {
    compute: teamCompute(team, { allocate, mark, release }),
    allocate,
    allocateWords(length) {
      const address = place(length)
      return new Int32Array(memory.buffer, address, length)
    },
    mark,
    release,
    get peakBytes() {
      return peakBytes
    },
  }
}

/** Ordinary arrays and plain loops in the precision of `values`. */
export function plainWorkspace(values: Tensors): Workspace {
  const isDouble = [...values.values()].some((value) => value instanceof Float64Array)
  return {
    compute: plainCompute,
    allocate: (length) => (isDouble ? new Float64Array(length) : new Float32Array(length)),
    allocateWords: (length) => new Int32Array(length),
    mark: () => 0,
    release() {},
    peakBytes: 0,
  }
}

function grow(memory: KernelMemory, bytes: number): void {
  const wanted = Math.ceil(bytes / GROWTH_BYTES) * GROWTH_BYTES
  if (growKernelMemory(memory, wanted)) return
  throw new ModelError({
    code: 'out-of-memory',
    message: 'Weights, gradients and activations do not fit',
    expected: 'at most 4 GiB together',
    received: `${(bytes / 2 ** 30).toFixed(2)} GiB`,
    next: 'Train fewer tokens at once (batch, sequence length) and accumulate, or train with PyTorch (polygraft export-cpt).',
  })
}
