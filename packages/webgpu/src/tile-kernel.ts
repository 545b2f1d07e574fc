import { checkRun, countNonFinite, type Kernel, type KernelCounts, sumCounts } from '@polygraft/kernels'
import { byteSize } from '@polygraft/tensor'
import { SUMS, tileKernelOf } from './_tile-codegen.js'
import type { TileArithmetic } from './_wgsl-floats.js'
import { dispatch } from './dispatch.js'
import type { Gpu } from './gpu.js'

/** A kernel with buffers for one tile, as `TileKernel` of `@polygraft/kernels`, but that it runs on a GPU. */
export interface GpuTileKernel {
  readonly inputs: readonly Uint8Array<ArrayBuffer>[]
  readonly outputs: readonly Uint8Array<ArrayBuffer>[]
  /** `integer` where the adapter's floats are not exact: the same bytes, more instructions. */
  readonly arithmetic: TileArithmetic
  /**
   * Computes elements [0, count) of every output, in pieces where the tile exceeds what the GPU binds.
   * @throws ModelError as `TileKernel.run`, and as `Gpu.read`.
   */
  run(count: number, scalars: ArrayLike<number>, ends?: ArrayLike<number>): Promise<KernelCounts>
  destroy(): void
}

/**
 * The kernel on a GPU, with the bytes and counts of `referenceKernel` on every adapter. `undefined` for F64, which WGSL does
 * not have.
 * @param arithmetic `native` is exact only where `gpu.arithmetic.exact`; it is chosen when it is not given.
 */
export function createTileKernel(
  gpu: Gpu,
  kernel: Kernel,
  maxElements: number,
  arithmetic: TileArithmetic = gpu.arithmetic.exact ? 'native' : 'integer',
): GpuTileKernel | undefined {
  const dtypes = [...kernel.inputs, ...kernel.outputs.map(({ dtype }) => dtype)]
  const casts = kernel.nodes.flatMap((node) => (node.op === 'cast' ? [node.dtype] : []))
  if ([...dtypes, ...casts].includes('F64')) return undefined
  const shader = tileKernelOf(kernel, arithmetic)
  const tile = (dtype: (typeof dtypes)[number]) => new Uint8Array(byteSize(dtype, maxElements))
  const inputs = kernel.inputs.map(tile)
  const outputs = kernel.outputs.map(({ dtype }) => tile(dtype))
  const layout = layoutOf(kernel, Math.max(maxElements, 1), gpu.maxBindingBytes)
  const x = gpu.createBuffer(layout.inputBytes)
  const y = gpu.createBuffer(layout.outputBytes)
  const counts = gpu.createBuffer(kernel.outputs.length * SUMS * 4)

  /** Elements [begin, end): to the device, through the kernel, and back. */
  async function runPiece(begin: number, end: number, scalars: ArrayLike<number>, ends: ArrayLike<number>) {
    const count = end - begin
    for (const [i, dtype] of kernel.inputs.entries())
      gpu.write(x, slice(inputs[i]!, dtype, begin, end), layout.inputs[i]! * 4)
    const params = paramsOf(kernel, layout, count, scalars, (i) => ends[i]! - begin)
    gpu.run([dispatch(shader, { x, y, counts }, params)])
    for (const [i, { dtype }] of kernel.outputs.entries())
      slice(outputs[i]!, dtype, begin, end).set(
        await gpu.read(y, layout.outputs[i]! * 4, byteSize(dtype, count)),
      )
  }

  return {
    inputs,
    outputs,
    arithmetic,
    async run(count, scalars, ends = []) {
      checkRun(kernel, maxElements, count, scalars, ends)
      gpu.write(counts, new Uint32Array(kernel.outputs.length * SUMS))
      for (let begin = 0; begin < count; begin += layout.elements)
        await runPiece(begin, Math.min(begin + layout.elements, count), scalars, ends)
      const sums = new Uint32Array((await gpu.read(counts)).buffer)
      return sumCounts(
        kernel.outputs.map((_, i) => {
          const [changed, swallowed, notFinite] = sums.subarray(i * SUMS, (i + 1) * SUMS)
          const nonFinite = notFinite! > 0 && countNonFinite(kernel, i, inputs, outputs[i]!, 0, count)
          return { changed: changed!, swallowed: swallowed!, ...(nonFinite ? { nonFinite } : {}) }
        }),
      )
    },
    destroy() {
      for (const buffer of [x, y, counts]) buffer.destroy()
    },
  }
}

function slice(tile: Uint8Array<ArrayBuffer>, dtype: Kernel['inputs'][number], begin: number, end: number) {
  return tile.subarray(byteSize(dtype, begin), byteSize(dtype, end))
}

/** Where the tiles lie in the two buffers. Unit: words of 4 bytes. */
interface Layout {
  /** Of one piece; even, as two elements share a word. */
  readonly elements: number
  readonly inputs: readonly number[]
  readonly outputs: readonly number[]
  readonly inputBytes: number
  readonly outputBytes: number
}

function layoutOf(kernel: Kernel, maxElements: number, maxBytes: number): Layout {
  const outputs = kernel.outputs.map(({ dtype }) => dtype)
  const pairBytes = (dtypes: readonly Kernel['inputs'][number][]) =>
    dtypes.reduce((sum, dtype) => sum + byteSize(dtype, 2), 0)
  const fitting = Math.floor(maxBytes / Math.max(pairBytes(kernel.inputs), pairBytes(outputs), 1))
  const pairs = Math.min(Math.ceil(maxElements / 2), fitting)
  const place = (dtypes: readonly Kernel['inputs'][number][]) => {
    let words = 0
    return dtypes.map((dtype) => {
      words += byteSize(dtype, pairs * 2) / 4
      return words - byteSize(dtype, pairs * 2) / 4
    })
  }
  return {
    elements: pairs * 2,
    inputs: place(kernel.inputs),
    outputs: place(outputs),
    inputBytes: pairs * pairBytes(kernel.inputs),
    outputBytes: pairs * pairBytes(outputs),
  }
}

function paramsOf(
  kernel: Kernel,
  layout: Layout,
  count: number,
  scalars: ArrayLike<number>,
  end: (index: number) => number,
): Record<string, number> {
  const bits = new Uint32Array(
    Float32Array.from({ length: kernel.scalars.length }, (_, i) => scalars[i]!).buffer,
  )
  const named = (prefix: string, values: ArrayLike<number>) =>
    Array.from(values, (value, i) => [`${prefix}${i}`, value] as const)
  return Object.fromEntries([
    ['count', count],
    ['zero', 0],
    ...named('in', layout.inputs),
    ...named('out', layout.outputs),
    ...named('scalar', bits),
    ...named(
      'end',
      kernel.ends.map((_, i) => Math.min(Math.max(end(i), 0), count)),
    ),
  ])
}
