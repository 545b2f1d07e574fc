import { byteSize, ModelError } from '@polygraft/tensor'
import { dispatch } from '../dispatch.js'
import type { Gpu, GpuBuffer } from '../gpu.js'
import { copyWords } from './elementwise.js'
import type { GpuGatedMlp, GpuWeight } from './shapes.js'

/** The same matrix of all experts, in as few buffers as the device binds. */
export interface ExpertStack {
  readonly dtype: GpuWeight['dtype']
  readonly rows: number
  readonly depth: number
  /** Elements from one expert to the next. */
  readonly stride: number
  readonly pieces: readonly { readonly buffer: GpuBuffer; readonly begin: number; readonly end: number }[]
}

/**
 * Moves a matrix of every expert into common buffers, so that one dispatch reaches all. The weights stay usable: they become
 * parts of these. One buffer's memory is needed on top while it is filled.
 */
export function stackExperts(
  gpu: Gpu,
  experts: readonly GpuGatedMlp[],
  part: 'gate' | 'up' | 'down',
): ExpertStack {
  if (experts.some((expert) => expert[part].bias))
    throw new ModelError({ code: 'unsupported', message: `The experts' '${part}' has a bias` })
  const weights = experts.map((expert) => expert[part].weight)
  const { dtype, shape } = weights[0]!
  const [rows, depth] = [shape[0]!, shape[1]!]
  const stride = Math.ceil((rows * depth) / 2) * 2
  const most = Math.max(1, Math.floor(gpu.maxBindingBytes / byteSize(dtype, stride)))
  const pieces = []
  for (let begin = 0; begin < weights.length; begin += most) {
    const end = Math.min(weights.length, begin + most)
    const buffer = gpu.createBuffer(byteSize(dtype, stride * (end - begin)))
    for (let e = begin; e < end; e++) moveWeight(gpu, weights[e]!, buffer, (e - begin) * stride)
    pieces.push({ buffer, begin, end })
  }
  return { dtype, rows, depth, stride, pieces }
}

/** Into elements [from, ...) of `buffer`. */
function moveWeight(gpu: Gpu, weight: GpuWeight, buffer: GpuBuffer, from: number): void {
  const depth = weight.shape[1]!
  for (const piece of weight.pieces) {
    const at = byteSize(weight.dtype, from + piece.begin * depth) / 4
    const count = Math.ceil(byteSize(weight.dtype, (piece.end - piece.begin) * depth) / 4)
    const begin = byteSize(weight.dtype, piece.from) / 4
    gpu.run([dispatch(copyWords, { x: piece.buffer, y: buffer }, { count, begin, at })])
    if (!piece.shared) piece.buffer.destroy()
  }
  weight.pieces = [{ buffer, begin: 0, end: weight.shape[0]!, from, shared: true }]
}
