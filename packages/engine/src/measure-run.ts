import { BLOCK_ELEMENTS } from '@polygraft/kernels'
import { byteSize, numel, type Source, type SourceId, type Tensor } from '@polygraft/tensor'
import { openMeasureThreads } from '#platform'
import { drive } from './_drive.js'
import type { Kernels } from './_kernel-pool.js'
import {
  createMeasurer,
  type MeasureJob,
  type MeasureKind,
  type MeasureResults,
  type MeasureTask,
  type TaskRunner,
} from './measure-tasks.js'

/** How far a measurement has come. */
export interface MeasureProgress {
  /** A tensor that was just measured in part. */
  readonly tensor: string
  /** Bytes of the tensors measured so far, and of all; a tensor that is passed over twice counts twice. */
  readonly bytesDone: number
  readonly bytesTotal: number
}

/** How to measure. What comes out does not depend on any of it. */
export interface MeasureOptions {
  /** Threads beside the caller's, where the sources are local files; default 0. */
  readonly threads?: number
  /** 'simd' (default) or the plain TypeScript reference. */
  readonly kernels?: Kernels
  /** Elements of each tensor in memory at a time, in each thread. Default 64 Ki, which is also the most. */
  readonly tileElements?: number
  readonly onProgress?: (progress: MeasureProgress) => void
  /** Aborting throws the signal's reason. */
  readonly signal?: AbortSignal
}

/** Runs phases of tasks over `operands`, and tells of progress. */
export interface Measuring {
  /** @param passes how often a task's bytes enter the progress; default once. */
  run<Kind extends MeasureKind>(
    tasks: readonly MeasureTask<Kind>[],
    onResult: (task: MeasureTask<Kind>, index: number, result: MeasureResults[Kind]) => void,
    passes?: (task: MeasureTask<Kind>) => number,
  ): Promise<void>
}

/**
 * Calls `body` with a place to run tasks, and frees it after.
 * @param operands by name; see `MeasureJob`.
 * @param bytesTotal bytes of all tasks that count.
 */
export async function measuring<Result>(
  operands: ReadonlyMap<string, readonly Tensor[]>,
  sources: ReadonlyMap<SourceId, Source>,
  bytesTotal: number,
  options: MeasureOptions,
  body: (measuring: Measuring) => Promise<Result>,
): Promise<Result> {
  const { threads = 0, kernels = 'simd', tileElements = BLOCK_ELEMENTS, signal, onProgress } = options
  const tile = Math.max(1024, Math.min(BLOCK_ELEMENTS, tileElements - (tileElements % 1024)))
  const job = { sources, operands: [...operands.values()], tileElements: tile, kernels }
  const names = [...operands.keys()]
  const runner = openMeasureThreads(job, threads, signal) ?? here(job, signal)
  let bytesDone = 0
  try {
    return await body({
      async run(tasks, onResult, passes = () => 1) {
        signal?.throwIfAborted()
        await runner.run(tasks, (index, result) => {
          const task = tasks[index]!
          onResult(task, index, result)
          if (passes(task) === 0) return
          bytesDone += passes(task) * bytesOf(job.operands[task.operand]!, task.count)
          onProgress?.({ tensor: names[task.operand]!, bytesDone, bytesTotal })
        })
      },
    })
  } finally {
    await runner.close()
  }
}

/** Bytes of `count` elements of each of `tensors`. */
export function bytesOf(tensors: readonly Tensor[], count = numel(tensors[0]!.shape)): number {
  return tensors.reduce((sum, { dtype }) => sum + byteSize(dtype, count), 0)
}

/** Tasks of `blocks` blocks each that together cover an operand's elements. */
export function split<Kind extends MeasureKind>(
  tensor: Tensor,
  blocks: number,
  task: Omit<MeasureTask<Kind>, 'begin' | 'count'>,
): MeasureTask<Kind>[] {
  const total = numel(tensor.shape)
  const step = blocks * BLOCK_ELEMENTS
  return Array.from({ length: Math.ceil(total / step) }, (_, i) => ({
    ...task,
    begin: i * step,
    count: Math.min(step, total - i * step),
  })) as MeasureTask<Kind>[]
}

/** One task after the other, awaiting each read: for any byte source. */
function here(job: MeasureJob, signal?: AbortSignal): TaskRunner {
  const measurer = createMeasurer(job)
  return {
    async run(tasks, onResult) {
      for (const [i, task] of tasks.entries()) onResult(i, await drive(measurer.run(task), signal))
    },
    close: async () => {},
  }
}
