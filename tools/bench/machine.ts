import { arch, cpus, loadavg, platform, totalmem } from 'node:os'
import { setTimeout } from 'node:timers/promises'

const IDLE_MS = 250
/** Above this share of all processors, times say little. */
export const BUSY_SHARE = 0.05

/** What the numbers depend on, without anything that names the machine. */
export function machineFacts(): string[] {
  const processors = cpus()
  const names = [...new Set(processors.map(({ model }) => model.trim()))].filter((name) => name !== '')
  return [
    `${processors.length} processors${names.length > 0 ? ` (${names.join(', ')})` : ''}`,
    `${Math.round(totalmem() / 2 ** 30)} GiB of memory`,
    `${platform()} ${arch()}`,
    `Node ${process.versions.node}`,
  ]
}

/** Load average over the last minute. */
export function load(): number {
  return loadavg()[0]!
}

/** Share of all processors that others use while this process waits. */
export async function busyShare(): Promise<number> {
  const before = processorTimes()
  await setTimeout(IDLE_MS)
  const after = processorTimes()
  const total = after.total - before.total
  return total === 0 ? 0 : 1 - (after.idle - before.idle) / total
}

function processorTimes(): { idle: number; total: number } {
  let idle = 0
  let total = 0
  for (const { times } of cpus()) {
    idle += times.idle
    total += times.user + times.nice + times.sys + times.irq + times.idle
  }
  return { idle, total }
}
