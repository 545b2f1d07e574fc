import {
  createKernelMemory,
  createProcessor,
  type KernelMemory,
  PROCESSOR_SCRATCH_BYTES,
} from '@polygraft/kernels'
import { ModelError } from '@polygraft/tensor'
import { startTeam } from '#platform'
import { CONTROL_BYTES, createRendezvous, type Rendezvous } from './_rendezvous.js'
import type { TeamInput } from './node/team-thread.js'

/** Numbers of a program that fit at once. */
const PROGRAM_LENGTH = 64 * 1024
/** After the control words the program, then the threads' scratch. Addresses in bytes. */
const PROGRAM = Math.ceil(CONTROL_BYTES / 64) * 64
const SCRATCH = PROGRAM + PROGRAM_LENGTH * 8
const SCRATCH_STRIDE = Math.ceil(PROCESSOR_SCRATCH_BYTES / 64) * 64

/** Threads that compute together in one memory: the caller's, and `threads - 1` others that sleep between programs. */
export interface Team {
  readonly memory: KernelMemory
  readonly threads: number
  /** First byte of the memory that is the caller's to use; a multiple of 64. */
  readonly begin: number
  /**
   * Runs instructions (`encodeInstruction`) in order; each is done by all threads before the next begins. Blocks the calling thread.
   * @throws ModelError "thread" when a thread fails or ends; the team is of no more use then.
   */
  run(instructions: readonly (readonly number[])[]): void
  /** Ends the threads. */
  close(): Promise<void>
}

/** A team of `threads` threads, the calling one included; results do not depend on how many. */
export async function createTeam(threads: number): Promise<Team> {
  const { memory, begin } = placesOf(threads, threads > 1)
  const together = createRendezvous(new Int32Array(memory.buffer, 0, CONTROL_BYTES / 4), threads)
  const others = Array.from({ length: threads - 1 }, (_, i): TeamInput => {
    const place = { control: 0, program: PROGRAM, scratch: SCRATCH + (i + 1) * SCRATCH_STRIDE }
    return { role: 'team', memory, ...place, part: i + 1, parts: threads }
  })
  // Alone, nobody waits; and its own memory's view is gone once that has grown.
  const end = threads > 1 ? await startTeam(others, together).catch(rethrow) : async () => {}
  return leadTeam(memory, begin, threads, together, end)
}

/** A team of the calling thread alone, in a memory whose views stay valid while it grows: one that could be shared. */
export function createSoloTeam(): Team {
  const { memory, begin } = placesOf(1, true)
  const together = createRendezvous(new Int32Array(memory.buffer, 0, CONTROL_BYTES / 4), 1)
  return leadTeam(memory, begin, 1, together, async () => {})
}

function placesOf(threads: number, isShared: boolean) {
  const begin = SCRATCH + threads * SCRATCH_STRIDE
  return { memory: createKernelMemory(begin, isShared), begin }
}

function leadTeam(
  memory: KernelMemory,
  begin: number,
  threads: number,
  together: Rendezvous,
  end: () => Promise<void>,
): Team {
  const processor = createProcessor(memory, SCRATCH)

  /** One program that fits. */
  function runTogether(numbers: readonly number[]): void {
    new Float64Array(memory.buffer, PROGRAM, numbers.length).set(numbers)
    try {
      if (threads > 1) together.begin(numbers.length)
      const meet = threads > 1 ? together.meet : () => {}
      processor.run(new Float64Array(memory.buffer, PROGRAM, numbers.length), 0, threads, meet)
    } catch (error) {
      if (threads > 1) together.fail()
      throw threadFailed(error)
    }
  }

  return {
    memory,
    threads,
    begin,
    run(instructions) {
      for (const numbers of fitting(instructions)) runTogether(numbers)
    },
    close: end,
  }
}

/** Instructions as programs of at most PROGRAM_LENGTH numbers. */
function fitting(instructions: readonly (readonly number[])[]): number[][] {
  const programs: number[][] = [[]]
  for (const instruction of instructions) {
    if (programs.at(-1)!.length + instruction.length > PROGRAM_LENGTH) programs.push([])
    programs.at(-1)!.push(...instruction)
  }
  return programs.filter(({ length }) => length > 0)
}

function rethrow(cause: unknown): never {
  throw cause instanceof ModelError ? cause : threadFailed(cause)
}

function threadFailed(cause: unknown): ModelError {
  const received = cause instanceof Error ? cause.message : String(cause)
  const next = 'Start again, with fewer threads if memory is short.'
  return new ModelError(
    { code: 'thread', message: 'A thread that computes has failed', received, next },
    { cause },
  )
}
