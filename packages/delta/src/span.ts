import { type Expr, literal, numel, type Problem, scale, type Tensor } from '@polygraft/tensor'
import { type Ask, dotsOf, type GramTarget } from './measures.js'

/** What is taken for one vector: a whole tensor, or each row or column of a matrix. Tensors of one dimension are one row. */
export type Grain = 'tensor' | 'rows' | 'columns'

/** Dot products of vectors, of one group: a whole tensor, row or column. */
export type Dots = (i: number, j: number) => number

/**
 * sum_i c_i x_i, whose coefficients follow from the dot products of the x_i: for each tensor, row or column alone. Undefined while they
 * are not measured, and where `coefficientsOf` finds none, which is a problem.
 */
export function spanned(
  name: string,
  tensors: readonly Tensor[],
  grain: Grain,
  ask: Ask,
  coefficientsOf: (dot: Dots) => readonly number[] | Problem,
): Expr | undefined {
  const { dtype, shape } = tensors[0]!
  if (numel(shape) === 0) return tensors[0]!.expr
  const width = shape.at(-1) ?? 1
  const by = shape.length > 1 ? grain : 'tensor'
  const target: GramTarget = by === 'tensor' ? { tensors } : { tensors, by, width }
  const gram = ask.gram(name, target)
  if (!gram) return undefined
  const { groups, dot } = dotsOf(gram, tensors.length)
  const all: (readonly number[])[] = []
  for (let group = 0; group < groups; group++) {
    const coefficients = coefficientsOf((i, j) => dot(i, j, group))
    if ('code' in coefficients) {
      ask.problems.push({ ...coefficients, tensor: name })
      return undefined
    }
    all.push(coefficients)
  }
  const terms = tensors.map(({ expr }, i) => {
    if (by === 'tensor') return scale(all[0]![i]!, expr)
    const factors = all.map((coefficients) => coefficients[i]!)
    const parts = dtype === 'F64' ? partsOf(factors) : [Float32Array.from(factors)]
    const [each, times] = by === 'rows' ? [width, 1] : [1, numel(shape) / width]
    const spread = parts.map(
      (part): Expr => ({ op: 'spread', arg: literal(part), count: groups, each, times }),
    )
    const sum: Expr = spread.length === 1 ? spread[0]! : { op: 'add', args: spread }
    return { op: 'mul', args: [sum, expr] } as Expr
  })
  return terms.length === 1 ? terms[0] : { op: 'add', args: terms }
}

/** F64 numbers as sums of F32 ones, which literals hold: three have more digits than F64. */
function partsOf(values: readonly number[]): Float32Array[] {
  const high = Float32Array.from(values)
  const middle = Float32Array.from(values, (value, i) => value - high[i]!)
  const low = Float32Array.from(values, (value, i) => value - high[i]! - middle[i]!)
  return [high, middle, low]
}

/** cos of the angle between x_i and x_j, within [-1, 1]; NaN where one of them is 0. */
export function cosine(dot: Dots, i: number, j: number): number {
  const cos = dot(i, j) / Math.sqrt(dot(i, i)) / Math.sqrt(dot(j, j))
  return Math.max(-1, Math.min(1, cos))
}

/** [sin((1 - t) Omega), sin(t Omega)] / sin Omega: how far to go along the arc between two vectors. */
export function arc(t: number, cos: number): readonly [number, number] {
  const omega = Math.acos(cos)
  const sin = Math.sin(omega)
  return [Math.sin((1 - t) * omega) / sin, Math.sin(t * omega) / sin]
}
