import { denseName, type Family, familyOf, nameOf, type Role, roleOf } from '@polygraft/architectures'
import { effectiveTensors, isTied } from '@polygraft/delta'
import type { Checkpoint, Tensor } from '@polygraft/tensor'
import type { DenseDelta } from './_dense-delta.js'
import { type GraftSettings, lambdaOf } from './options.js'

/** What becomes of one tensor of cpt. */
export interface Step {
  readonly name: string
  readonly role: Role
  readonly cpt: Tensor
  /** The dense tensor whose delta it takes; undefined for what no dense tensor is the origin of. */
  readonly dense: string | undefined
  readonly lambda: number
}

/** What becomes of each tensor of cpt, in their order; a head that is untied by the graft comes last. */
export function planSteps(cpt: Checkpoint, delta: DenseDelta, settings: GraftSettings): readonly Step[] {
  const family = familyOf(cpt.config)
  const tensors = effectiveTensors(cpt, !(isTied(cpt) && delta.tied))
  return [...tensors].map(([name, tensor]) => {
    const role = roleOf(family, name)
    const dense = denseOrigin(family, delta.family, name, settings)
    return { name, role, cpt: tensor, dense, lambda: lambdaOf(settings, role.layer, role.expert) }
  })
}

/** The dense tensor that `name` of cpt derives from: a feed-forward matrix for experts, else the one of the same role. */
export function denseOrigin(
  family: Family,
  dense: Family,
  name: string,
  { sharedExpert }: GraftSettings,
): string | undefined {
  const role = roleOf(family, name)
  if (role.group !== 'shared_expert') return denseName(family, dense, name)
  return sharedExpert === 'derived' ? nameOf(dense, { ...role, group: 'ffn' }) : undefined
}
