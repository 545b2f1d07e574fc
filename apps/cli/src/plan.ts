import { readFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import {
  fittingThreads,
  type Plan,
  type PlanFile,
  parsePlan,
  planCheckpoint,
  reopenPlan,
} from '@polygraft/engine'
import { type Checkpoint, ModelError } from '@polygraft/tensor'
import { fileSource } from '@polygraft/tensor-io/node'
import { version } from '../package.json'
import { openCheckpoint } from './open.js'

/** A plan file, opened for running. */
export interface OpenedPlan {
  readonly file: PlanFile
  readonly checkpoint: Checkpoint
  readonly plan: Plan
}

/**
 * Opens a plan and its inputs, which must be those that it was made with.
 * @param wanted Threads; by default as many as there are cores and the plan's memory holds.
 */
export async function openPlan(path: string, wanted?: number): Promise<OpenedPlan> {
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new ModelError({ code: 'missing-file', message: 'The plan cannot be read', file: path }, { cause })
  })
  const file = parsePlan(text, path, version)
  const checkpoint = await reopenPlan(file, openCheckpoint, fileSource)
  const threads = wanted ?? fittingThreads(checkpoint, availableParallelism(), file.limits.memoryBytes)
  return { file, checkpoint, plan: planCheckpoint(checkpoint, { ...file.limits, threads }) }
}
