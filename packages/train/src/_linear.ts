import type { Floats, Matmul } from './matmul.js'
import type { Linear } from './parameters.js'

/** y [rows, out] = x [rows, in] W^T + b; with `add` added to y. */
export function linear(
  matmul: Matmul,
  { weight, bias, out, in: width }: Linear,
  rows: number,
  x: Floats,
  y: Floats,
  add = false,
): void {
  matmul.nt(rows, out, width, x, weight.value, y, add)
  if (bias) addBias(y, bias.value, rows, out)
}

/**
 * Adds dy^T x to the weight's gradient and the columns' sums of dy to the bias's, where they are trained; and dx (+)= dy W, unless `dx`
 * is left out.
 */
export function linearBackward(
  matmul: Matmul,
  { weight, bias, out, in: width }: Linear,
  rows: number,
  x: Floats,
  dy: Floats,
  dx: Floats | undefined,
  add: boolean,
): void {
  if (weight.gradient) matmul.tn(out, width, rows, dy, x, weight.gradient, true)
  if (bias?.gradient) addColumns(bias.gradient, dy, rows, out)
  if (dx) matmul.nn(rows, width, out, dy, weight.value, dx, add)
}

function addBias(y: Floats, bias: Floats, rows: number, out: number): void {
  for (let i = 0; i < rows; i++) for (let j = 0; j < out; j++) y[i * out + j]! += bias[j]!
}

function addColumns(sums: Floats, dy: Floats, rows: number, out: number): void {
  for (let i = 0; i < rows; i++) for (let j = 0; j < out; j++) sums[j]! += dy[i * out + j]!
}
