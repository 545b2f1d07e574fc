import { byteSize } from '@polygraft/tensor'
import { createMemory } from './_wasm-run.js'
import type { Kernel } from './kernel.js'

/** Tiles start 64-byte aligned, and so far apart that equal indices of two tiles differ in their lower 12 address bits. */
const TILE_ALIGN = 64
const TILE_STAGGER = 320
/** Loops may write whole steps of so many elements. */
const WHOLE = 16

/** The tiles of a kernel in a memory of their own. */
export interface Tiles {
  readonly memory: { readonly buffer: ArrayBuffer }
  readonly inputs: readonly Uint8Array[]
  readonly outputs: readonly Uint8Array[]
  /** Addresses of element `begin` of each input, then of each output. */
  addresses(begin: number): number[]
}

/** Tiles of `maxElements`, from byte `from` of a memory on; undefined beyond 4 GiB. */
export function createTiles(kernel: Kernel, maxElements: number, from: number): Tiles | undefined {
  const dtypes = [...kernel.inputs, ...kernel.outputs.map((output) => output.dtype)]
  const bases: number[] = []
  let end = from
  for (const dtype of dtypes) {
    bases.push(Math.ceil(end / TILE_ALIGN) * TILE_ALIGN)
    end = bases.at(-1)! + byteSize(dtype, Math.ceil(maxElements / WHOLE) * WHOLE) + TILE_STAGGER
  }
  const memory = createMemory(end)
  if (!memory) return undefined
  const views = dtypes.map(
    (dtype, i) => new Uint8Array(memory.buffer, bases[i], byteSize(dtype, maxElements)),
  )
  return {
    memory,
    inputs: views.slice(0, kernel.inputs.length),
    outputs: views.slice(kernel.inputs.length),
    addresses: (begin) => dtypes.map((dtype, i) => bases[i]! + byteSize(dtype, begin)),
  }
}
