import type { Checkpoint, Tensor } from '@polygraft/tensor'
import type { Plan } from '../plan.js'
import { createDigest } from './digest.js'
import { type InputStates, inputStates } from './input-states.js'

/**
 * Names the bytes that `plan` will write, as SHA-256: the expressions, the layout, the inputs by content and by state, the
 * config, the carried files, the recipe and the version of the program. An unfinished output is gone on with only under
 * the same key.
 */
export function planKey(
  checkpoint: Checkpoint,
  plan: Pick<Plan, 'shards'>,
  version: string,
  states: InputStates = inputStates(checkpoint),
): string {
  const digest = createDigest()
  const add = (part: unknown) => digest.update(new TextEncoder().encode(`${JSON.stringify(part)}\n`))
  add(['polygraft', version, checkpoint.config, checkpoint.floatFields ?? [], checkpoint.provenance])
  for (const { file, size, header } of plan.shards) {
    add([file, size])
    digest.update(header)
  }
  for (const [name, tensor] of checkpoint.tensors) add([name, described(tensor)])
  for (const [id, { shards }] of checkpoint.sources) {
    add(id)
    for (const [name, { size, state }] of shards) add([name, size, state])
  }
  for (const [name, { size, state }] of checkpoint.files) add([name, size, state])
  for (const state of states) add(state)
  return digest.hex()
}

function described({ dtype, shape, expr }: Tensor) {
  return { dtype, shape, expr }
}
