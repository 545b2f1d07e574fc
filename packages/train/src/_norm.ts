import type { Compute } from './compute.js'
import type { Floats } from './matmul.js'
import type { Vector } from './parameters.js'

/** dx = or += the gradient of a norm's input, and that of its weight where it is trained. */
export function normGradients(
  compute: Compute,
  x: Floats,
  { value, gradient }: Vector,
  scales: Floats,
  dy: Floats,
  rows: number,
  width: number,
  dx: Floats | undefined,
  add: boolean,
): void {
  if (gradient) compute.normWeightGradient(x, scales, dy, rows, width, gradient)
  if (dx) compute.normBackward(x, value, scales, dy, rows, width, dx, add)
}
