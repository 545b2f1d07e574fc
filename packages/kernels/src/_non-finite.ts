import { byteSize, type FloatDType } from '@polygraft/tensor'
import { decode } from './float-formats.js'
import { type Kernel, type NonFinite, operandsOf } from './kernel.js'

/** Elements decoded at a time. */
const CHUNK = 1024

/**
 * How many of the stored elements [begin, end) of output number `output` are NaN or infinite, and why; undefined where none is.
 * It decodes them all: for tiles that have such elements.
 */
export function countNonFinite(
  kernel: Kernel,
  output: number,
  inputs: readonly Uint8Array[],
  stored: Uint8Array,
  begin: number,
  end: number,
): NonFinite | undefined {
  const { node, dtype } = kernel.outputs[output]!
  const values = new Float64Array(CHUNK)
  const operand = new Float64Array(CHUNK)
  let fromInputs = 0
  let made = 0
  for (let at = begin; at < end; at += CHUNK) {
    const size = Math.min(CHUNK, end - at)
    const part = (of: FloatDType, bytes: Uint8Array, into: Float64Array) =>
      decode(of, bytes.subarray(byteSize(of, at), byteSize(of, at + size)), into.subarray(0, size))
    part(dtype, stored, values)
    const found = indicesOf(values, size)
    if (found.length === 0) continue
    const caused = new Set<number>()
    for (const input of inputsOf(kernel, node)) {
      part(kernel.inputs[input]!, inputs[input]!, operand)
      for (const i of found) if (!Number.isFinite(operand[i])) caused.add(i)
    }
    fromInputs += caused.size
    made += found.length - caused.size
  }
  return fromInputs + made > 0 ? { fromInputs, made } : undefined
}

function indicesOf(values: Float64Array, size: number): number[] {
  const found: number[] = []
  for (let i = 0; i < size; i++) if (!Number.isFinite(values[i])) found.push(i)
  return found
}

/** The inputs that a node is computed from. */
function inputsOf({ nodes }: Kernel, node: number): ReadonlySet<number> {
  const found = new Set<number>()
  const seen = new Set<number>()
  const visit = (index: number): void => {
    if (seen.has(index)) return
    seen.add(index)
    const of = nodes[index]!
    if (of.op === 'input') found.add(of.index)
    else for (const operand of operandsOf(of)) visit(operand)
  }
  visit(node)
  return found
}
