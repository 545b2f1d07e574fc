import { evaluate } from '@polygraft/engine'
import { type Checkpoint, type Expr, type FloatDType, isFloat, numel, type Tensor } from '@polygraft/tensor'
import { addedExpr, graftPieces, joined, type PieceDelta, reversed } from './_piece-deltas.js'
import type { Step } from './_plan.js'

const SAMPLES = 4096

/** Bits of the significand after the leading one, and the smallest normal exponent. */
const FORMATS: Readonly<Record<FloatDType, readonly [fraction: number, minExponent: number]>> = {
  BF16: [7, -126],
  F16: [10, -14],
  F32: [23, -126],
  F64: [52, -1022],
}

export interface UngraftCount {
  readonly samples: number
  /** Those that miss cpt by more than 1 ulp of the largest operand. */
  readonly wrong: number
}

/**
 * Takes the delta off again, on up to 4096 elements from the tensor's middle: the graft of `output` with base and post
 * swapped, or with a stored delta's sign. What is not finite is left out, and so are tensors without a delta.
 */
export async function countUngraft(
  output: Tensor,
  { cpt }: Step,
  deltas: readonly PieceDelta[],
  sources: Checkpoint['sources'],
): Promise<UngraftCount> {
  const { dtype } = output
  if (deltas.length === 0 || !isFloat(dtype)) return { samples: 0, wrong: 0 }
  const { base, post } = joined(deltas)
  const swapped = graftPieces(output.expr, reversed(deltas, dtype))
  const operands = [output.expr, post, ...(base ? [base] : []), addedExpr(deltas)]
  const exprs: Expr[] = [{ op: 'cast', dtype, arg: swapped }, cpt.expr, ...operands]
  const columns = await Promise.all(exprs.map((expr) => sample(expr, output, sources)))
  const [back, original] = [columns[0]!, columns[1]!]
  let samples = 0
  let wrong = 0
  for (let i = 0; i < back.length; i++) {
    const largest = Math.max(...columns.map((column) => Math.abs(column[i]!)))
    if (!Number.isFinite(largest)) continue
    samples++
    if (Math.abs(back[i]! - original[i]!) > ulp(largest, dtype)) wrong++
  }
  return { samples, wrong }
}

/** Values of `expr` from the middle of a tensor like `like`. */
async function sample(
  expr: Expr,
  { dtype, shape }: Tensor,
  sources: Checkpoint['sources'],
): Promise<Float32Array | Float64Array> {
  const wide = dtype === 'F64' ? 'F64' : 'F32'
  const elements = numel(shape)
  const begin = Math.max(0, Math.floor((elements - SAMPLES) / 2))
  const end = Math.min(elements, begin + SAMPLES)
  const { buffer } = await evaluate({ dtype: wide, shape, expr }, sources, {
    begin,
    end,
    kernels: 'reference',
  })
  return wide === 'F64' ? new Float64Array(buffer) : new Float32Array(buffer)
}

/** Distance between neighbours of `dtype` at |value|. */
function ulp(value: number, dtype: FloatDType): number {
  const [fraction, minExponent] = FORMATS[dtype]
  const exponent = value === 0 ? minExponent : Math.floor(Math.log2(value))
  return 2 ** (Math.max(exponent, minExponent) - fraction)
}
