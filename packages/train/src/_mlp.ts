import { linear, linearBackward } from './_linear.js'
import type { Floats, Matmul } from './matmul.js'
import type { Mlp } from './parameters.js'

/** What the backward pass of an MLP over `rows` rows needs: gate and up before the activation, [rows, I] each. */
export interface MlpActivations {
  readonly gate: Floats
  readonly up: Floats
}

/** y (+)= down(silu(gate(x)) * up(x)). `hidden` [rows, I] is scratch. */
export function mlpForward(
  matmul: Matmul,
  mlp: Mlp,
  rows: number,
  x: Floats,
  { gate, up }: MlpActivations,
  hidden: Floats,
  y: Floats,
  add: boolean,
): void {
  linear(matmul, mlp.gate, rows, x, gate)
  linear(matmul, mlp.up, rows, x, up)
  activate(gate, up, hidden, rows * mlp.gate.out)
  linear(matmul, mlp.down, rows, hidden, y, add)
}

/**
 * Gradients of an MLP. `gate` and `up` of the activations are overwritten by their gradients. dx is added to, or left out.
 * `hidden`, `dHidden` [rows, I] are scratch.
 */
export function mlpBackward(
  matmul: Matmul,
  mlp: Mlp,
  rows: number,
  x: Floats,
  { gate, up }: MlpActivations,
  dy: Floats,
  dx: Floats | undefined,
  hidden: Floats,
  dHidden: Floats,
): void {
  // One pass over the activations, between the product that it needs and those that need it.
  const { down } = mlp
  matmul.nn(rows, down.in, down.out, dy, down.weight.value, dHidden, false)
  activateBackward(gate, up, hidden, dHidden, rows * mlp.gate.out)
  linearBackward(matmul, down, rows, hidden, dy, undefined, false)
  linearBackward(matmul, mlp.gate, rows, x, gate, dx, true)
  linearBackward(matmul, mlp.up, rows, x, up, dx, true)
}

/** hidden = silu(gate) * up */
function activate(gate: Floats, up: Floats, hidden: Floats, size: number): void {
  for (let i = 0; i < size; i++) {
    const g = gate[i]!
    hidden[i] = (g / (1 + Math.exp(-g))) * up[i]!
  }
}

/** hidden = silu(gate) * up, and (gate, up) become their gradients, given that of hidden. */
function activateBackward(gate: Floats, up: Floats, hidden: Floats, dHidden: Floats, size: number): void {
  for (let i = 0; i < size; i++) {
    const g = gate[i]!
    const u = up[i]!
    const d = dHidden[i]!
    const sigmoid = 1 / (1 + Math.exp(-g))
    const silu = g * sigmoid
    hidden[i] = silu * u
    gate[i] = d * u * (sigmoid + silu * (1 - sigmoid))
    up[i] = d * silu
  }
}
