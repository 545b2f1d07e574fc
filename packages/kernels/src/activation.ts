import { exponentialF32 } from './_exponential.js'
import { type ActivationName, ERF, GELU_CUBE, GELU_SCALE } from './_vector-codegen.js'

const f = Math.fround

/** activation(x) in F32, every step rounded: what the SIMD loops give to the bit. */
export function referenceActivation(activation: ActivationName, x: number): number {
  return REFERENCES[activation](f(x))
}

const REFERENCES: Readonly<Record<ActivationName, (x: number) => number>> = {
  silu: (x) => f(x / f(1 + exponentialF32(-x))),
  relu: (x) => Math.max(x, 0),
  gelu(x) {
    const z = f(Math.abs(x) * f(Math.SQRT1_2))
    const t = f(1 / f(1 + f(f(ERF.scale) * z)))
    const polynomial = ERF.coefficients
      .map(f)
      .reduce((sum, coefficient, i) => (i === 0 ? coefficient : f(f(sum * t) + coefficient)), 0)
    const erf = f(1 - f(f(polynomial * t) * exponentialF32(-f(z * z))))
    return f(f(0.5 * x) * f(1 + (x < 0 ? -erf : erf)))
  },
  gelu_tanh(x) {
    const cube = f(f(f(x * x) * x) * f(GELU_CUBE))
    return f(x / f(1 + exponentialF32(-f(f(2 * GELU_SCALE) * f(x + cube)))))
  },
}
