import type { Checkpoint } from '@polygraft/tensor'
import type { Kernels } from './_kernel-pool.js'
import type { TensorCounts } from './evaluate.js'
import type { Plan } from './plan.js'

/** What is to be computed: the shards and tasks of `plan`. */
export interface TaskJob {
  readonly checkpoint: Pick<Checkpoint, 'tensors' | 'sources'>
  readonly plan: Plan
  readonly kernels: Kernels
}

/** A task that is done: its index in the list, and the counts of each tensor of its group. */
export interface TaskDone {
  readonly index: number
  readonly counts: readonly TensorCounts[]
}

export interface TaskEvents {
  readonly onTask: (done: TaskDone) => void
  /** What an earlier run did of shards that it did not finish, and how many bytes of tensors that are: it is not done again. */
  readonly onKept: (counts: readonly Readonly<Record<string, TensorCounts>>[], bytes: number) => void
  /** A shard's bytes are all written; called once for each, and awaited before the run ends. */
  readonly onShard: (file: string, sha256: string) => Promise<void>
  readonly signal?: AbortSignal
}

/** The largest tile of a job, in elements. */
export function maxTile({ work }: Pick<Plan, 'work'>): number {
  return work.groups.reduce((most, { tileElements }) => Math.max(most, tileElements), 1)
}
