import type { Gpu } from '@polygraft/webgpu'
import type { Case } from './case.js'
import { DECODER_CASES } from './decoder.js'
import { TILE_CASES } from './tiles.js'

export const SUITE: readonly Case[] = [...TILE_CASES, ...DECODER_CASES]

/** How one case went. */
export interface Outcome {
  readonly name: string
  readonly status: 'passed' | 'failed' | 'skipped'
  /** Why it failed or was skipped. */
  readonly message?: string
  readonly ms: number
}

/** Runs one case. It fails when it throws, or leaves buffers behind. */
export async function runCase(gpu: Gpu, found: Case): Promise<Outcome> {
  const { name } = found
  const reason = found.skip?.(gpu)
  if (reason !== undefined) return { name, status: 'skipped', message: reason, ms: 0 }
  const start = performance.now()
  const { buffers, bytes } = gpu.live
  const ms = () => performance.now() - start
  try {
    await found.run(gpu)
    if (gpu.live.buffers !== buffers || gpu.live.bytes !== bytes)
      throw new Error(`${gpu.live.buffers - buffers} buffers were not destroyed`)
    return { name, status: 'passed', ms: ms() }
  } catch (error) {
    return {
      name,
      status: 'failed',
      message: error instanceof Error ? (error.stack ?? error.message) : `${error}`,
      ms: ms(),
    }
  }
}
