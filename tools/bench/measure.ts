import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** What one run of a command used. CPU: user and system, of all its processes. Memory: of its largest process. */
export interface Usage {
  readonly wallSeconds: number
  readonly cpuSeconds: number
  readonly peakBytes: number
}

/** A program to run. */
export interface Command {
  readonly argv: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** Exit code that it must end with; a signal's number, negated. Default 0. */
  readonly code?: number
}

const HELPER = fileURLToPath(new URL('measure.py', import.meta.url))
const PYTHON = process.env.PYTHON ?? 'python3'
/** Certificates beside Node's own cost every start of Node some 30 ms, and nothing that is measured needs them. */
const { NODE_EXTRA_CA_CERTS: _, ...ENVIRONMENT } = process.env

/** Whether there is a Python to measure with. */
export function canMeasure(): boolean {
  return spawnSync(PYTHON, ['--version']).status === 0
}

/**
 * Runs a command to its end, measured.
 * @throws Error with the command's own words when it fails.
 */
export function measure({ argv, env, code: wanted = 0 }: Command, scratch: string): Usage {
  const report = join(scratch, 'usage.json')
  rmSync(report, { force: true })
  const run = spawnSync(PYTHON, [HELPER, report, ...argv], {
    encoding: 'utf8',
    env: { ...ENVIRONMENT, NO_COLOR: '1', ...env },
    maxBuffer: 2 ** 28,
  })
  if (run.status !== 0) throw new Error(`Cannot measure: ${run.stderr}`)
  const { code, ...usage } = JSON.parse(readFileSync(report, 'utf8')) as Usage & { code: number }
  if (code !== wanted)
    throw new Error(`${argv.join(' ')}\nended with code ${code}:\n${run.stdout}${run.stderr}`)
  return usage
}

/** Lets what earlier runs wrote reach the disk, so that it is not paid for by the next. */
export function settle(): void {
  execFileSync('sync')
}

/** Median, least and most of some numbers. */
export interface Spread {
  readonly median: number
  readonly least: number
  readonly most: number
}

export function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const median = sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
  return { median, least: sorted[0]!, most: sorted.at(-1)! }
}
