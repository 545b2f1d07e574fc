import { readFile } from 'node:fs/promises'
import { type Plan, type PlanFile, parsePlan, planCheckpoint, reopenPlan } from '@polygraft/engine'
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

/** Opens a plan and its inputs, which must be those that it was made with. */
export async function openPlan(path: string, threads: number): Promise<OpenedPlan> {
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new ModelError({ code: 'missing-file', message: 'The plan cannot be read', file: path }, { cause })
  })
  const file = parsePlan(text, path, version)
  const checkpoint = await reopenPlan(file, openCheckpoint, fileSource)
  return { file, checkpoint, plan: planCheckpoint(checkpoint, { ...file.limits, threads }) }
}
