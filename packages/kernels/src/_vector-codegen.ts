import { exponential, splatF32 } from './_exponential.js'
import type { Let } from './_lanes.js'
import { type Code, doWhile, f32x4, get, i32, moduleOf, set, v128 } from './_wasm.js'

/*
 * Loops over F32 elements, four a turn. What they compute stands in plain TypeScript in `activation.ts` and `softmax.ts`.
 */

/** silu(x) = x sigmoid(x); gelu by erf, and by tanh (arXiv:1606.08415); max(x, 0). */
export const ACTIVATIONS = ['silu', 'gelu', 'gelu_tanh', 'relu'] as const
export type ActivationName = (typeof ACTIVATIONS)[number]

/** More than any loop here keeps. */
const LOCALS = 48

/** A loop body in the making: every value that is kept gets a local of its own. */
export function body(first: number): { readonly code: Code[]; readonly keep: Let } {
  const code: Code[] = []
  let next = first
  const keep: Let = (value) => {
    code.push(set(next, value))
    return get(next++)
  }
  return { code, keep }
}

/** `run(x, y, turns)`: x = activation(x) * y. */
export function generateGated(activation: ActivationName, limits: Code): Uint8Array<ArrayBuffer> {
  const [x, y, turns] = [0, 1, 2] as const
  const { code, keep } = body(3)
  const value = keep(v128.load(get(x), 0))
  const activated = ACTIVATE[activation](keep, value)
  const product = f32x4.mul(activated, v128.load(get(y), 0))
  const turn = [
    ...code.flat(),
    ...v128.store(get(x), product, 0),
    ...step(x, 16),
    ...step(y, 16),
    ...step(turns, -1),
  ]
  return moduleOf(3, 0, LOCALS, doWhile(turn, get(turns)), limits)
}

/** `run(x, turns, result)`: the largest of x in each lane, four F32 to `result`. */
export function generateLargest(limits: Code): Uint8Array<ArrayBuffer> {
  const [x, turns, result, largest] = [0, 1, 2, 3] as const
  const turn = [
    ...set(largest, f32x4.max(get(largest), v128.load(get(x), 0))),
    ...step(x, 16),
    ...step(turns, -1),
  ]
  const begin = set(largest, splatF32(Number.NEGATIVE_INFINITY))
  return moduleOf(
    3,
    0,
    1,
    [...begin, ...doWhile(turn, get(turns)), ...v128.store(get(result), get(largest), 0)],
    limits,
  )
}

/** `run(x, turns, result, scale and largest)`: x = e^(scale * x - largest); their sums in each lane to `result`. */
export function generateExponentials(limits: Code): Uint8Array<ArrayBuffer> {
  const [x, turns, result, scalars, scale, largest, sum] = [0, 1, 2, 3, 4, 5, 6] as const
  const { code, keep } = body(7)
  const power = keep(exponential(keep, f32x4.sub(f32x4.mul(v128.load(get(x), 0), get(scale)), get(largest))))
  const turn = [
    ...code.flat(),
    ...v128.store(get(x), power, 0),
    ...set(sum, f32x4.add(get(sum), power)),
    ...step(x, 16),
    ...step(turns, -1),
  ]
  const begin = [
    ...set(scale, v128.load32Splat(get(scalars), 0)),
    ...set(largest, v128.load32Splat(get(scalars), 4)),
  ]
  return moduleOf(
    4,
    0,
    LOCALS,
    [...begin, ...doWhile(turn, get(turns)), ...v128.store(get(result), get(sum), 0)],
    limits,
  )
}

/** `run(x, turns, factor)`: x = x * factor, where `factor` is the address of an F32. */
export function generateScale(limits: Code): Uint8Array<ArrayBuffer> {
  const [x, turns, scalar, factor] = [0, 1, 2, 3] as const
  const product = f32x4.mul(v128.load(get(x), 0), get(factor))
  const turn = [...v128.store(get(x), product, 0), ...step(x, 16), ...step(turns, -1)]
  return moduleOf(
    3,
    0,
    1,
    [...set(factor, v128.load32Splat(get(scalar), 0)), ...doWhile(turn, get(turns))],
    limits,
  )
}

const { add, sub, mul, div } = f32x4
const one = splatF32(1)

const ACTIVATE: Readonly<Record<ActivationName, (keep: Let, x: Code) => Code>> = {
  silu: (keep, x) => div(x, add(one, exponential(keep, negative(x)))),
  relu: (_, x) => f32x4.max(x, splatF32(0)),
  gelu(keep, x) {
    const z = keep(mul(f32x4.abs(x), splatF32(Math.SQRT1_2)))
    const t = keep(div(one, add(one, mul(splatF32(ERF.scale), z))))
    const [first, ...others] = ERF.coefficients.map(splatF32) as [Code, ...Code[]]
    const polynomial = others.reduce((sum, coefficient) => keep(add(mul(sum, t), coefficient)), first)
    const erf = sub(one, mul(mul(polynomial, t), exponential(keep, negative(mul(z, z)))))
    const signed = v128.or(erf, v128.and(x, v128.splat(0x80000000)))
    return mul(mul(splatF32(0.5), x), add(one, signed))
  },
  gelu_tanh(keep, x) {
    const cube = mul(mul(mul(x, x), x), splatF32(GELU_CUBE))
    const inner = keep(mul(splatF32(2 * GELU_SCALE), add(x, cube)))
    return div(x, add(one, exponential(keep, negative(inner)))) // (1 + tanh(u)) / 2 = sigmoid(2u)
  },
}

/** sqrt(2 / pi) and the factor of x^3. */
export const GELU_SCALE = Math.sqrt(2 / Math.PI)
export const GELU_CUBE = 0.044715

/** erf within 1.5e-7 (Abramowitz and Stegun, 7.1.26), the coefficients from the highest power down. */
export const ERF = {
  scale: 0.3275911,
  coefficients: [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592],
} as const

function negative(x: Code): Code {
  return v128.xor(x, v128.splat(0x80000000))
}

/** Adds `by` to a local. */
export function step(local: number, by: number): Code {
  return set(local, i32.add(get(local), i32.const(by)))
}
