import { byteSize } from '@polygraft/tensor'
import { countNonFinite } from './_non-finite.js'
import { addNonFinite, createCounts, type OutputSums } from './counts.js'
import { decode, encode, type FloatArray, roundTo } from './float-formats.js'
import {
  checkRun,
  type Election,
  type Kernel,
  type KernelNode,
  operandsOf,
  sumCounts,
  type TileKernel,
} from './kernel.js'

type Mode = 'F32' | 'F64'

/** Elements per step: the nodes' values of one step stay in the first-level cache. */
const BLOCK = 1024

/**
 * The kernel interpreted in TypeScript: the definition that every other implementation must match bit for bit.
 * One operation over a block of elements at a time; storing to a Float32Array rounds, and rounding an F64 sum, difference, product or quotient of F32 values is the F32 operation (Figueroa, "When is double
 * rounding innocuous?", 1995).
 */
export function referenceKernel(kernel: Kernel, maxElements: number): TileKernel {
  const inputs = kernel.inputs.map((dtype) => new Uint8Array(byteSize(dtype, maxElements)))
  const outputs = kernel.outputs.map(({ dtype }) => new Uint8Array(byteSize(dtype, maxElements)))
  const plans = (['F32', 'F64'] as const).map((mode) => planOf(kernel, mode))
  return {
    inputs,
    outputs,
    run(count, scalars, ends = []) {
      checkRun(kernel, maxElements, count, scalars, ends)
      const counts = kernel.outputs.map(createCounts)
      for (let begin = 0; begin < count; begin += BLOCK) {
        const end = Math.min(begin + BLOCK, count)
        for (const plan of plans) {
          for (const node of plan.nodes) {
            const values = plan.values[node]!.subarray(0, end - begin)
            compute(kernel, plan, node, values, {
              scalars,
              input: (i) => stored(kernel.inputs[i]!, inputs[i]!, begin, end),
              end: (i) => ends[i]! - begin,
            })
          }
          for (const i of plan.outputs)
            store(kernel, plan, i, stored(kernel.outputs[i]!.dtype, outputs[i]!, begin, end), counts[i]!)
        }
      }
      for (const [i, sums] of counts.entries())
        addNonFinite(sums, countNonFinite(kernel, i, inputs, outputs[i]!, 0, count))
      return sumCounts(counts)
    },
  }
}

/** The part of a kernel that is computed in one precision. */
interface Plan {
  readonly mode: Mode
  /** Indices of the outputs, and of the nodes they need, in order. */
  readonly outputs: readonly number[]
  readonly nodes: readonly number[]
  /** A block of values for each of `nodes`, by index of the node. Masks are 0 and 1. */
  readonly values: readonly FloatArray[]
  /** Encoded output and encoded cpt, to be compared. */
  readonly cpt: Uint8Array
}

function planOf(kernel: Kernel, mode: Mode): Plan {
  const outputs = [...kernel.outputs.keys()].filter(
    (i) => (kernel.outputs[i]!.dtype === 'F64') === (mode === 'F64'),
  )
  const needed = new Set<number>(outputs.map((i) => kernel.outputs[i]!.node))
  for (let i = kernel.nodes.length - 1; i >= 0; i--)
    if (needed.has(i)) for (const operand of operandsOf(kernel.nodes[i]!)) needed.add(operand)
  const block = () => (mode === 'F64' ? new Float64Array(BLOCK) : new Float32Array(BLOCK))
  return {
    mode,
    outputs,
    nodes: [...needed].sort((a, b) => a - b),
    values: kernel.nodes.map((_, i) => (needed.has(i) ? block() : new Float32Array(0))),
    cpt: new Uint8Array(BLOCK * 8),
  }
}

/** The stored elements [begin, end) of a tile. */
function stored(dtype: Kernel['inputs'][number], tile: Uint8Array, begin: number, end: number): Uint8Array {
  return tile.subarray(byteSize(dtype, begin), byteSize(dtype, end))
}

/** What a block of elements is computed from. */
interface Block {
  readonly scalars: ArrayLike<number>
  /** Stored elements of an input. */
  readonly input: (index: number) => Uint8Array
  /** The kernel's ends, from the block's first element. */
  readonly end: (index: number) => number
}

function compute(
  kernel: Kernel,
  { mode, values }: Plan,
  index: number,
  out: FloatArray,
  { scalars, input, end }: Block,
): void {
  const node: KernelNode = kernel.nodes[index]!
  const scalar = (i: number) => roundTo(mode, scalars[i]!)
  if (node.op === 'input') decode(kernel.inputs[node.index]!, input(node.index), out)
  else if (node.op === 'scale') scaleInto(out, values[node.a]!, scalar(node.scalar))
  else if (node.op === 'cast') castInto(out, values[node.a]!, node.dtype)
  else if (node.op === 'ratio') ratioInto(out, values[node.a]!, values[node.b]!, scalar(node.scalar))
  else if (node.op === 'clamp')
    clampInto(out, values[node.a]!, values[node.b]!, values[node.delta]!, scalar(node.scalar))
  else if (node.op === 'select') selectInto(out, values[node.mask]!, values[node.a]!, values[node.b]!)
  else if (node.op === 'keep')
    keepInto(out, values[node.a]!, values[node.b]!, scalar(node.scalar), end(node.end))
  else if (node.op === 'elect') {
    const args = node.args.map((arg) => values[arg]!)
    electInto(out, args, values[node.sum]!, { ...node, mode, scalar })
  } else if (node.op === 'graft')
    graftInto(out, node, values, node.scalar === undefined ? 1 : scalar(node.scalar))
  else foldInto(out, node.op, values[node.a]!, values[node.b]!)
}

function foldInto(out: FloatArray, op: 'add' | 'sub' | 'mul' | 'equal', a: FloatArray, b: FloatArray): void {
  if (op === 'add') for (let i = 0; i < out.length; i++) out[i] = a[i]! + b[i]!
  else if (op === 'sub') for (let i = 0; i < out.length; i++) out[i] = a[i]! - b[i]!
  else if (op === 'mul') for (let i = 0; i < out.length; i++) out[i] = a[i]! * b[i]!
  else for (let i = 0; i < out.length; i++) out[i] = a[i]! === b[i]! ? 1 : 0
}

function scaleInto(out: FloatArray, a: FloatArray, by: number): void {
  for (let i = 0; i < out.length; i++) out[i] = by * a[i]!
}

function castInto(out: FloatArray, a: FloatArray, dtype: Kernel['inputs'][number]): void {
  for (let i = 0; i < out.length; i++) out[i] = roundTo(dtype, a[i]!)
}

/** num / den, and 1 wherever |den| <= guard. */
function ratioInto(out: FloatArray, num: FloatArray, den: FloatArray, guard: number): void {
  for (let i = 0; i < out.length; i++) out[i] = Math.abs(den[i]!) <= guard ? 1 : num[i]! / den[i]!
}

/** a where it is within `by` of b, else b + by or b - by. */
function clampInto(out: FloatArray, a: FloatArray, b: FloatArray, delta: FloatArray, by: number): void {
  for (let i = 0; i < out.length; i++) {
    const d = delta[i]!
    if (Number.isNaN(d)) out[i] = d
    else out[i] = Math.abs(d) > by ? b[i]! + (d < 0 ? -by : by) : a[i]!
  }
}

/** on wherever the mask is not 0, else off. */
function selectInto(out: FloatArray, mask: FloatArray, on: FloatArray, off: FloatArray): void {
  for (let i = 0; i < out.length; i++) out[i] = mask[i] === 0 ? off[i]! : on[i]!
}

/** The elements that are not below the threshold, but for those at it from index `end` on. NaN is below nothing. */
function keepInto(out: FloatArray, a: FloatArray, by: FloatArray, threshold: number, end: number): void {
  for (let i = 0; i < out.length; i++) {
    const size = Math.abs(by[i]!)
    out[i] = size < threshold || (size === threshold && i >= end) ? 0 : a[i]!
  }
}

/** The mean of the elected elements: see `elect` of `Expr`. */
function electInto(
  out: FloatArray,
  args: readonly FloatArray[],
  sum: FloatArray,
  {
    by,
    positive,
    weights,
    mode,
    scalar,
  }: Election & { readonly mode: Mode; readonly scalar: (i: number) => number },
): void {
  const weightOf = args.map((_, t) => (Array.isArray(weights) ? scalar(weights[t]) : 1))
  for (let i = 0; i < out.length; i++) {
    const votes = by === 'count' ? args.reduce((all, arg) => all + (Math.sign(arg[i]!) || 0), 0) : sum[i]!
    const sign = Math.sign(votes) || (positive ? 1 : 0)
    let total = 0
    let weight = 0
    for (const [t, arg] of args.entries()) {
      const x = arg[i]!
      if (x === 0 || (by !== 'any' && Math.sign(x) !== sign)) continue
      total = roundTo(mode, total + x)
      weight = roundTo(mode, weight + weightOf[t]!)
    }
    const divisor = weights === 'none' || weight === 0 ? 1 : weight
    out[i] = Number.isNaN(sum[i]!) ? Number.NaN : total / divisor
  }
}

/** post == base -> cpt; lambda == 1 and cpt == base -> post; else cpt + lambda (post - base), each operation rounded. */
function graftInto(
  out: FloatArray,
  node: Extract<KernelNode, { op: 'graft' }>,
  values: readonly FloatArray[],
  lambda: number,
): void {
  const [cpt, base, post] = [values[node.cpt]!, values[node.base]!, values[node.post]!]
  const [delta, same] = [values[node.delta]!, values[node.same]!]
  for (let i = 0; i < out.length; i++) out[i] = lambda * delta[i]!
  for (let i = 0; i < out.length; i++) {
    if (same[i] === 1) out[i] = cpt[i]!
    else if (node.scalar === undefined && cpt[i] === base[i]) out[i] = post[i]!
    else out[i] = cpt[i]! + out[i]!
  }
}

function store(kernel: Kernel, plan: Plan, output: number, bytes: Uint8Array, counts: OutputSums): void {
  const { node: index, dtype } = kernel.outputs[output]!
  const width = byteSize(dtype, 1)
  const count = bytes.length / width
  encode(dtype, plan.values[index]!.subarray(0, count), bytes)
  const node = kernel.nodes[index]!
  if (node.op !== 'graft') return
  const same = plan.values[node.same]!
  const cpt = plan.cpt.subarray(0, bytes.length)
  encode(dtype, plan.values[node.cpt]!.subarray(0, count), cpt)
  for (let i = 0; i < count; i++) {
    if (same[i] === 1) continue
    counts.changed++
    if (equalBytes(bytes, cpt, i * width, width)) counts.swallowed++
  }
}

function equalBytes(a: Uint8Array, b: Uint8Array, begin: number, length: number): boolean {
  for (let i = begin; i < begin + length; i++) if (a[i] !== b[i]) return false
  return true
}
