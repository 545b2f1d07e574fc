import type { Checkpoint } from '@polygraft/tensor'
import type { Kernels } from './_kernel-pool.js'
import type { GraftCounts } from './evaluate.js'
import type { Plan } from './plan.js'

/** What is to be computed. */
export interface TaskJob {
  readonly checkpoint: Pick<Checkpoint, 'tensors' | 'sources'>
  readonly plan: Plan
  readonly kernels: Kernels
}

/** A task that is done: its index in the list, and the counts of each tensor of its group. */
export interface TaskDone {
  readonly index: number
  readonly counts: readonly GraftCounts[]
}

export interface TaskEvents {
  readonly onTask: (done: TaskDone) => void
  readonly signal?: AbortSignal
}
