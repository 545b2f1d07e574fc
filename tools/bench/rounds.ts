import { renameSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Case, Places } from './cases.js'
import { busyShare } from './machine.js'
import { measure, settle, type Usage } from './measure.js'
import { removeOutput, type Variant, type Variants, variantsOf } from './variants.js'

/** All that was measured of one case. */
export interface Measured {
  readonly case: Case
  readonly variants: Variants
  /** Bytes that a variant reads and writes, by its key. */
  readonly bytes: ReadonlyMap<string, number>
  /** A usage for each round, by a variant's key. */
  readonly usages: ReadonlyMap<string, readonly Usage[]>
}

export interface RoundOptions {
  readonly rounds: number
  readonly mergekit: boolean
  /** Told of each run, and of the share of the processors that others took just before it. */
  readonly onRun: (label: string, usage: Usage, busy: number) => void
}

/**
 * Measures cases that share their data: every variant once untimed, which also brings the inputs into the page cache, then
 * all of them in turn, round by round, each round from another start.
 */
export async function runRounds(
  cases: readonly Case[],
  places: Places,
  { rounds, mergekit, onRun }: RoundOptions,
): Promise<Measured[]> {
  const byCase = cases.map((each) => variantsOf(each, places, keptOf(places), mergekit))
  const bytes = new Map<string, number>()
  for (const [i, variants] of byCase.entries()) warmUp(cases[i]!, variants, places, bytes)
  const order = [...new Map(byCase.flatMap(listOf).map((variant) => [variant.key, variant])).values()]
  const usages = new Map<string, Usage[]>(order.map(({ key }) => [key, []]))
  for (let round = 0; round < rounds; round++) {
    const start = Math.floor((round * order.length) / rounds)
    for (const variant of [...order.slice(start), ...order.slice(0, start)]) {
      removeOutput(places)
      settle()
      const busy = await busyShare()
      const usage = measure(variant.command(), places.data)
      usages.get(variant.key)!.push(usage)
      onRun(variant.key, usage, busy)
    }
  }
  removeOutput(places)
  return cases.map((each, i) => ({ case: each, variants: byCase[i]!, bytes, usages }))
}

function listOf(variants: Variants): Variant[] {
  return Object.values(variants)
}

/** Runs each variant of a case that has not been run yet, and notes how many bytes it moves. */
function warmUp(
  { writes, peer }: Case,
  variants: Variants,
  places: Places,
  bytes: Map<string, number>,
): void {
  let outputBytes = 0
  for (const variant of [variants.ours, ...listOf(variants)]) {
    if (bytes.has(variant.key)) continue
    removeOutput(places)
    measure(variant.command(), places.data)
    if (variant === variants.ours && writes) {
      outputBytes = statSync(join(places.out, 'model.safetensors')).size
      if (peer.copied.includes('output')) renameSync(places.out, keptOf(places))
    }
    bytes.set(variant.key, variant.bytes(outputBytes))
  }
}

/** One case of those that share data has a peer that copies an output. */
function keptOf({ data }: Places): string {
  return join(data, 'kept')
}
