import type { Compute } from './compute.js'
import type { Floats } from './matmul.js'
import type { Linear } from './parameters.js'

/** y [rows, out] = x [rows, in] W^T + b; with `add` added to y. */
export function linear(
  compute: Compute,
  { weight, bias, out, in: width }: Linear,
  rows: number,
  x: Floats,
  y: Floats,
  add = false,
): void {
  compute.nt(rows, out, width, x, weight.value, y, add)
  if (bias) compute.addBias(y, bias.value, rows, out)
}

/**
 * Adds dy^T x to the weight's gradient and the columns' sums of dy to the bias's, where they are trained; and dx (+)= dy W, unless `dx`
 * is left out.
 */
export function linearBackward(
  compute: Compute,
  { weight, bias, out, in: width }: Linear,
  rows: number,
  x: Floats,
  dy: Floats,
  dx: Floats | undefined,
  add: boolean,
): void {
  if (weight.gradient) compute.tn(out, width, rows, dy, x, weight.gradient, true)
  if (bias?.gradient) compute.addColumns(bias.gradient, dy, rows, out)
  if (dx) compute.nn(rows, width, out, dy, weight.value, dx, add)
}
