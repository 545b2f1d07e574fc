import { type Role, roleOf } from '@polygraft/architectures'
import { effectiveTensors, isTied } from '@polygraft/delta'
import { type Layout, layoutOf, type Piece, piecesOf } from '@polygraft/experts'
import type { Checkpoint, Tensor } from '@polygraft/tensor'
import type { DenseDelta } from './_dense-delta.js'
import { expansionOf } from './_expansion.js'
import { type GraftSettings, lambdaOf } from './options.js'

/** A piece of a tensor of cpt, and the factor of its delta. */
export interface StepPiece extends Piece {
  readonly lambda: number
}

/** What becomes of one tensor of cpt. */
export interface Step {
  readonly name: string
  readonly role: Role
  readonly cpt: Tensor
  /** The dense tensors whose deltas it takes; none for what no dense tensor is the origin of. */
  readonly pieces: readonly StepPiece[]
}

/** cpt's layout over the dense model. */
export function layoutFor(cpt: Checkpoint, delta: DenseDelta, settings: GraftSettings): Layout {
  return layoutOf(cpt.config, delta.config, expansionOf(cpt, delta.config, settings))
}

/** What becomes of each tensor of cpt, in their order; a head that is untied by the graft comes last. */
export function planSteps(cpt: Checkpoint, delta: DenseDelta, settings: GraftSettings): readonly Step[] {
  const layout = layoutFor(cpt, delta, settings)
  const tensors = effectiveTensors(cpt, !(isTied(cpt) && delta.tied))
  return [...tensors].map(([name, tensor]) => {
    const role = roleOf(layout.family, name)
    const pieces = piecesOf(layout, name).map((piece) => ({
      ...piece,
      lambda: lambdaOf(settings, role.layer, piece.copy),
    }))
    return { name, role, cpt: tensor, pieces }
  })
}
