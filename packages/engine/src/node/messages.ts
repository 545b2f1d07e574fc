import { ModelError, type Problem, type Source, type StateDict } from '@polygraft/tensor'
import type { Kernels } from '../_kernel-pool.js'
import type { TensorCounts } from '../evaluate.js'
import type { Plan } from '../plan.js'

/** Slots of the shared control words: the next task to take, whether to stop, and the tasks that may be begun. */
export const NEXT = 0
export const STOP = 1
export const OPEN = 2
export const CONTROL_BYTES = 12

/** What a thread needs to know. Cloned once for each thread. */
export interface WorkerInput {
  readonly role: 'compute'
  readonly control: SharedArrayBuffer
  readonly job: {
    readonly checkpoint: { readonly tensors: StateDict; readonly sources: ReadonlyMap<string, Source> }
    readonly plan: Plan
    readonly kernels: Kernels
    /** The folder that is written, as a path. */
    readonly folder: string
  }
}

export type WorkerOutput =
  | { readonly kind: 'task'; readonly index: number; readonly counts: readonly TensorCounts[] }
  | { readonly kind: 'idle' }
  | { readonly kind: 'failed'; readonly failure: Failure }

/** An error as it crosses threads: ModelErrors keep their problems. */
export interface Failure {
  readonly message: string
  readonly problems?: readonly Problem[]
}

export function failureOf(error: unknown): Failure {
  if (error instanceof ModelError) return { message: error.message, problems: error.problems }
  return { message: error instanceof Error ? (error.stack ?? error.message) : String(error) }
}

export function errorOf({ message, problems }: Failure): Error {
  return problems ? new ModelError(problems) : new Error(message)
}
