import {
  type Manifest,
  type Plan,
  type PlanOptions,
  planCheckpoint,
  writeCheckpoint,
} from '@polygraft/engine'
import {
  byteSize,
  type Checkpoint,
  formatProblem,
  ModelError,
  numel,
  type Problem,
  throwIfAny,
} from '@polygraft/tensor'
import { createFolder, freeBytes, outputProblems } from '@polygraft/tensor-io/node'
import { version } from '../package.json'
import { formatBytes, formatCount } from './format.js'
import type { Terminal } from './terminal.js'

/** Options that every writing command has. */
export interface WriteArguments {
  readonly out: string
  readonly maxShardSize: number
  readonly memory: number
  readonly threads: number
  readonly force?: boolean
  readonly dryRun?: boolean
}

/** What a writing command is about to do. */
export interface Job {
  /** What is being done, for the progress display: `graft`. */
  readonly label: string
  /** Local paths that the output may not touch. */
  readonly inputs: readonly string[]
  readonly problems: readonly Problem[]
  readonly warnings: readonly Problem[]
  /** Called when there are no problems. */
  build(): Checkpoint
}

/** Runs a job, or with --dry-run only says what it would do. Prints the result. */
export async function runJob(terminal: Terminal, job: Job, args: WriteArguments): Promise<void> {
  for (const warning of job.warnings) terminal.note(`warning ${formatProblem(warning)}`)
  if (args.dryRun) return dryRun(terminal, job, args)
  throwIfAny(job.problems)
  const checkpoint = job.build()
  const started = performance.now()
  const { manifest, plan } = await writeOutput(terminal, checkpoint, job, args)
  const elapsedMs = Math.round(performance.now() - started)
  const result = { out: args.out, elapsedMs, ...summary(plan), ...manifest, warnings: job.warnings }
  terminal.result(result, () => describeWritten(args.out, plan, manifest, elapsedMs))
}

/** Writes `checkpoint` to `args.out`, whole or not at all. Ctrl-C discards what was begun. */
export async function writeOutput(
  terminal: Terminal,
  checkpoint: Checkpoint,
  job: Pick<Job, 'label' | 'inputs'>,
  args: WriteArguments,
): Promise<{ manifest: Manifest; plan: Plan }> {
  const limits = limitsOf(checkpoint, args)
  const plan = planCheckpoint(checkpoint, limits)
  throwIfAny(await placeProblems(job, args, plan))
  const folder = await createFolder(args.out, { force: args.force ?? false, inputs: job.inputs })
  const cancel = new AbortController()
  const stop = () =>
    cancel.abort(new ModelError({ code: 'cancelled', message: 'Cancelled; nothing was written' }))
  process.once('SIGINT', stop).once('SIGTERM', stop)
  const meter = terminal.progress(job.label)
  try {
    const manifest = await writeCheckpoint(checkpoint, folder, {
      ...limits,
      version,
      signal: cancel.signal,
      onProgress: ({ bytesDone, bytesTotal }) => meter.update(bytesDone, bytesTotal),
    })
    await folder.publish()
    meter.done(`${job.label} written`)
    return { manifest, plan }
  } catch (error) {
    meter.done(`${job.label} stopped`)
    await folder.discard()
    throw error
  } finally {
    process.off('SIGINT', stop).off('SIGTERM', stop)
  }
}

// Starting threads takes longer than writing this much.
const MIN_THREADED_BYTES = 64 * 2 ** 20

function limitsOf({ tensors }: Checkpoint, { maxShardSize, memory, threads }: WriteArguments): PlanOptions {
  const bytes = [...tensors.values()].reduce(
    (sum, { dtype, shape }) => sum + byteSize(dtype, numel(shape)),
    0,
  )
  return {
    maxShardBytes: maxShardSize,
    memoryBytes: memory,
    threads: bytes < MIN_THREADED_BYTES ? 0 : threads,
  }
}

async function dryRun(terminal: Terminal, job: Job, args: WriteArguments): Promise<void> {
  const problems = [...job.problems]
  let plan: Plan | undefined
  if (problems.length === 0) {
    try {
      const checkpoint = job.build()
      plan = planCheckpoint(checkpoint, limitsOf(checkpoint, args))
    } catch (error) {
      if (!(error instanceof ModelError)) throw error
      problems.push(...error.problems)
    }
  }
  problems.push(...(await placeProblems(job, args, plan)))
  const result = {
    dryRun: true,
    out: args.out,
    ...(plan ? summary(plan) : {}),
    problems,
    warnings: job.warnings,
  }
  terminal.result(result, () => describeDryRun(args.out, plan, problems))
  if (problems.length > 0) process.exitCode = 1
}

async function placeProblems(
  job: Pick<Job, 'inputs'>,
  args: WriteArguments,
  plan?: Plan,
): Promise<Problem[]> {
  const problems = await outputProblems(args.out, { force: args.force ?? false, inputs: job.inputs })
  const free = await freeBytes(args.out)
  if (plan && free < plan.bytesWritten)
    problems.push({
      code: 'disk-full',
      message: 'Not enough free space for the output',
      file: args.out,
      expected: formatBytes(plan.bytesWritten),
      received: `${formatBytes(free)} free`,
      next: 'Free some space or choose another place.',
    })
  return problems
}

function summary(plan: Plan) {
  const { parameters, bytesRead, bytesWritten, peakBytes } = plan
  return { parameters, bytesRead, bytesWritten, peakBytes, shardCount: plan.shards.length }
}

function describeDryRun(out: string, plan: Plan | undefined, problems: readonly Problem[]): string {
  const lines = [`would write ${out}`]
  if (plan) {
    lines.push(`  parameters  ${formatCount(plan.parameters)}`)
    lines.push(`  read        ${formatBytes(plan.bytesRead)}`)
    lines.push(`  written     ${formatBytes(plan.bytesWritten)} in ${plan.shards.length} shard(s)`)
    lines.push(`  peak memory ${formatBytes(plan.peakBytes)}, estimated from above`)
  }
  lines.push(problems.length === 0 ? 'no problem found' : `${problems.length} problem(s) found:`)
  return [...lines, ...problems.map(formatProblem)].join('\n')
}

function describeWritten(out: string, plan: Plan, manifest: Manifest, elapsedMs: number): string {
  const seconds = elapsedMs / 1000
  const rate = (plan.bytesRead + plan.bytesWritten) / Math.max(1e-3, seconds)
  const lines = [
    `wrote ${out}: ${formatCount(plan.parameters)} parameters, ${formatBytes(plan.bytesWritten)} in ${plan.shards.length} shard(s), ${seconds.toFixed(2)} s (${formatBytes(Math.round(rate))}/s read and written)`,
  ]
  if (manifest.experts)
    lines.push(`experts: ${manifest.experts.map((label, e) => `${e} ${label}`).join(', ')}`)
  if (manifest.delta) {
    const { changed, swallowed, swallowedFraction } = manifest.delta
    lines.push(
      `delta: ${formatCount(changed)} elements changed by post-training, ${formatCount(swallowed)} of them (${(swallowedFraction * 100).toPrecision(2)} %) too small for the dtype`,
    )
  }
  if (manifest.skipped.length > 0)
    lines.push(`skipped: ${manifest.skipped.map((s) => `${s.tensor} (${s.reason})`).join(', ')}`)
  return lines.join('\n')
}
