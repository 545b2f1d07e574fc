import { type Drawn, drawBatch, type LanguageData } from './batches.js'
import type { StepReport, Trainer } from './trainer.js'

/** How batches come about, and what is to be told. */
export interface RunOptions {
  readonly steps: number
  readonly seed: number
  /** Most tokens of a batch. */
  readonly batchTokens: number
  /** Batches a step. */
  readonly accumulation: number
  readonly signal?: AbortSignal
  /** What was drawn by the steps that the trainer has done. */
  readonly drawn?: Drawn
  /** Waited for after every step. */
  onStep(report: StepReport, drawn: Drawn): Promise<void> | void
}

/**
 * Trains up to `steps`. What a step does depends on the trainer's state, the data, the seed and what was drawn, so a run that goes on from a
 * saved state ends in the same bytes.
 * @throws the signal's reason between two steps; and as `Trainer.update`.
 */
export async function runTraining(
  trainer: Trainer,
  data: readonly LanguageData[],
  options: RunOptions,
): Promise<void> {
  const { steps, seed, batchTokens, accumulation, signal } = options
  let drawn = options.drawn ?? data.map(() => ({ documents: 0, tokens: 0 }))
  while (trainer.step < steps) {
    signal?.throwIfAborted()
    const batches = Array.from({ length: accumulation }, () => {
      const next = drawBatch(data, drawn, batchTokens, seed)
      drawn = next.drawn
      return next.batch
    })
    await options.onStep(trainer.update(batches), drawn)
  }
}
