import { linear, linearBackward } from './_linear.js'
import type { Floats, Matmul } from './matmul.js'
import type { Mlp } from './parameters.js'

/** What the backward pass of an MLP over `rows` rows needs, [rows, I] each: kept, since exponentials cost more than memory. */
export interface MlpActivations {
  /** Before the activation. */
  readonly gate: Floats
  readonly up: Floats
  readonly sigmoid: Floats
  /** silu(gate) * up */
  readonly hidden: Floats
}

export function mlpActivations(allocate: (length: number) => Floats, size: number): MlpActivations {
  return { gate: allocate(size), up: allocate(size), sigmoid: allocate(size), hidden: allocate(size) }
}

/** y (+)= down(silu(gate(x)) * up(x)) */
export function mlpForward(
  matmul: Matmul,
  mlp: Mlp,
  rows: number,
  x: Floats,
  activations: MlpActivations,
  y: Floats,
  add: boolean,
): void {
  linear(matmul, mlp.gate, rows, x, activations.gate)
  linear(matmul, mlp.up, rows, x, activations.up)
  activate(activations, rows * mlp.gate.out)
  linear(matmul, mlp.down, rows, activations.hidden, y, add)
}

/** Gradients of an MLP. `gate` and `up` of the activations are overwritten by their gradients. dx is added to, or left out. */
export function mlpBackward(
  matmul: Matmul,
  mlp: Mlp,
  rows: number,
  x: Floats,
  activations: MlpActivations,
  dy: Floats,
  dx: Floats | undefined,
  dHidden: Floats,
): void {
  linearBackward(matmul, mlp.down, rows, activations.hidden, dy, dHidden, false)
  activateBackward(activations, dHidden, rows * mlp.gate.out)
  linearBackward(matmul, mlp.gate, rows, x, activations.gate, dx, true)
  linearBackward(matmul, mlp.up, rows, x, activations.up, dx, true)
}

/** sigmoid = 1 / (1 + exp(-gate)), hidden = gate * sigmoid * up */
function activate({ gate, up, sigmoid, hidden }: MlpActivations, size: number): void {
  for (let i = 0; i < size; i++) {
    const s = 1 / (1 + Math.exp(-gate[i]!))
    sigmoid[i] = s
    hidden[i] = gate[i]! * s * up[i]!
  }
}

/** (gate, up) become their gradients, given that of hidden. */
function activateBackward({ gate, up, sigmoid }: MlpActivations, dHidden: Floats, size: number): void {
  for (let i = 0; i < size; i++) {
    const s = sigmoid[i]!
    const silu = gate[i]! * s
    const d = dHidden[i]!
    gate[i] = d * up[i]! * (s + silu * (1 - s))
    up[i] = d * silu
  }
}
