import { writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { describeCheckpoint, formatPlan, type Plan, type PlanFile, planKey } from '@polygraft/engine'
import { type Checkpoint, ModelError } from '@polygraft/tensor'
import { version } from '../package.json'
import { formatBytes, plural } from './format.js'
import type { Terminal } from './terminal.js'

interface Arguments {
  readonly out: string
  readonly force?: boolean
  readonly maxShardSize: number
  readonly memory: number
  readonly plan: string
}

/** Saves what would be written, for `polygraft run` and `polygraft finish`. */
export async function savePlan(
  terminal: Terminal,
  checkpoint: Checkpoint,
  plan: Plan,
  args: Arguments,
): Promise<void> {
  const file: PlanFile = {
    polygraft: { plan: 1, version },
    key: planKey(checkpoint, plan, version),
    out: resolve(args.out),
    force: args.force ?? false,
    limits: { maxShardBytes: args.maxShardSize, memoryBytes: args.memory },
    shardCount: plan.shards.length,
    bytesWritten: plan.bytesWritten,
    ...(await describeCheckpoint(checkpoint)),
  }
  await writeFile(args.plan, formatPlan(file)).catch((cause: Error) => {
    throw new ModelError(
      { code: 'io', message: 'The plan cannot be saved', file: args.plan, received: cause.message },
      { cause },
    )
  })
  const { key, out, shardCount, bytesWritten } = file
  terminal.result({ plan: args.plan, key, out, shardCount, bytesWritten }, () =>
    [
      `saved ${args.plan}: ${plural(shardCount, 'shard')}, ${formatBytes(bytesWritten)}, for ${out}`,
      `next: polygraft run ${args.plan} --task i/n for every i from 1 to n (n up to ${shardCount}), then polygraft finish ${args.plan}`,
    ].join('\n'),
  )
}
