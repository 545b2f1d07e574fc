import { linear, linearBackward } from './_linear.js'
import type { Compute } from './compute.js'
import type { Floats } from './matmul.js'
import type { Mlp } from './parameters.js'

/** What the backward pass of an MLP over `rows` rows needs, [rows, I] each. */
export interface MlpActivations {
  /** Before the activation. */
  readonly gate: Floats
  readonly up: Floats
  /** silu(gate) * up */
  readonly hidden: Floats
}

export function mlpActivations(allocate: (length: number) => Floats, size: number): MlpActivations {
  return { gate: allocate(size), up: allocate(size), hidden: allocate(size) }
}

/** y (+)= down(silu(gate(x)) * up(x)) */
export function mlpForward(
  compute: Compute,
  mlp: Mlp,
  rows: number,
  x: Floats,
  { gate, up, hidden }: MlpActivations,
  y: Floats,
  add: boolean,
): void {
  linear(compute, mlp.gate, rows, x, gate)
  linear(compute, mlp.up, rows, x, up)
  compute.silu(gate, up, hidden)
  linear(compute, mlp.down, rows, hidden, y, add)
}

/** Gradients of an MLP. `gate` and `up` of the activations are overwritten by their gradients. dx is added to, or left out. */
export function mlpBackward(
  compute: Compute,
  mlp: Mlp,
  rows: number,
  x: Floats,
  { gate, up, hidden }: MlpActivations,
  dy: Floats,
  dx: Floats | undefined,
  dHidden: Floats,
): void {
  linearBackward(compute, mlp.down, rows, hidden, dy, dHidden, false)
  compute.siluBackward(gate, up, dHidden)
  linearBackward(compute, mlp.gate, rows, x, gate, dx, true)
  linearBackward(compute, mlp.up, rows, x, up, dx, true)
}
