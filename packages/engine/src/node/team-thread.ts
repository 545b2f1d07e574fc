import { parentPort } from 'node:worker_threads'
import { createProcessor, type KernelMemory } from '@polygraft/kernels'
import { CONTROL_BYTES, createRendezvous } from '../_rendezvous.js'

/** What a thread of a team needs to know: its part, and where in the shared memory its things are (bytes). */
export interface TeamInput {
  readonly role: 'team'
  readonly memory: KernelMemory
  readonly control: number
  readonly program: number
  readonly scratch: number
  readonly part: number
  readonly parts: number
}

/** Runs its part of one program after another until the team is dissolved. */
export function serveTeam(input: TeamInput, fail: (error: unknown) => void): void {
  const { memory, control, program, scratch, part, parts } = input
  const together = createRendezvous(new Int32Array(memory.buffer, control, CONTROL_BYTES / 4), parts)
  const processor = createProcessor(memory, scratch)
  parentPort!.postMessage({ kind: 'ready' })
  for (let length = together.next(); length !== undefined; length = together.next())
    try {
      processor.run(new Float64Array(memory.buffer, program, length), part, parts, together.meet)
    } catch (error) {
      together.fail()
      fail(error)
      return
    }
}
