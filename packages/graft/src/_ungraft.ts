import { effectiveTensors, storedExpr } from '@polygraft/delta'
import { evaluate } from '@polygraft/engine'
import { type Checkpoint, type Expr, type FloatDType, isFloat, numel, type Tensor } from '@polygraft/tensor'
import type { Step } from './_plan.js'
import type { PairSource } from './options.js'

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
 * swapped. What is not finite, and tensors without a delta or with moved rows, are left out.
 */
export async function countUngraft(
  output: Tensor,
  step: Step,
  { base, post }: PairSource,
  sources: Checkpoint['sources'],
): Promise<UngraftCount> {
  const [from, to] = [
    effectiveTensors(base, true).get(step.dense ?? ''),
    effectiveTensors(post, true).get(step.dense ?? ''),
  ]
  const { dtype } = output
  const alike = [step.cpt, from, to].every((each) => each && `${each.shape}` === `${output.shape}`)
  if (!from || !to || !alike || !isFloat(dtype)) return { samples: 0, wrong: 0 }
  const operands = { base: storedExpr(to, post), post: storedExpr(from, base) }
  const whole = {
    sources,
    provenance: { recipe: [], skipped: [] },
    config: {},
    files: new Map(),
    tensors: new Map(),
  }
  const back: Expr = { op: 'graft', cpt: storedExpr(output, whole), ...operands, lambda: step.lambda }
  const cpt = storedExpr(step.cpt, whole)
  const change: Expr = {
    op: 'scale',
    by: step.lambda,
    arg: { op: 'sub', args: [operands.base, operands.post] },
  }
  const exprs = [
    { op: 'cast', dtype, arg: back } as const,
    cpt,
    output.expr,
    operands.base,
    operands.post,
    change,
  ]
  const columns = await Promise.all(exprs.map((expr) => sample(expr, output, sources)))
  const [reversed, original] = [columns[0]!, columns[1]!]
  let samples = 0
  let wrong = 0
  for (let i = 0; i < reversed.length; i++) {
    const largest = Math.max(...columns.map((column) => Math.abs(column[i]!)))
    if (!Number.isFinite(largest)) continue
    samples++
    if (Math.abs(reversed[i]! - original[i]!) > ulp(largest, dtype)) wrong++
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
