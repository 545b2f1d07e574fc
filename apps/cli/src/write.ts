import { availableParallelism } from 'node:os'
import {
  checkInputStates,
  fittingThreads,
  inputStates,
  type Manifest,
  type MeasureOptions,
  type Plan,
  type PlanOptions,
  planCheckpoint,
  planKey,
  writeCheckpoint,
} from '@polygraft/engine'
import {
  byteSize,
  type Checkpoint,
  formatProblem,
  ModelError,
  numel,
  type Problem,
  type Tensor,
  throwIfAny,
} from '@polygraft/tensor'
import {
  freeBytes,
  keptBytes,
  outputProblems,
  type ResumableFolder,
  resumeFolder,
} from '@polygraft/tensor-io/node'
import { version } from '../package.json'
import { formatBytes, formatCount, formatShare, plural } from './format.js'
import { describeNonFinite, type NonFinitePolicy, refuseNonFinite } from './non-finite.js'
import { savePlan } from './save-plan.js'
import { untilCancelled } from './signals.js'
import type { Terminal } from './terminal.js'

/** Options that every writing command has. */
export interface WriteArguments {
  readonly out: string
  readonly maxShardSize: number
  readonly memory: number
  readonly threads?: number
  readonly force?: boolean
  readonly dryRun?: boolean
  readonly nonFinite: NonFinitePolicy
  /** Where to save the plan in place of running it. */
  readonly plan?: string
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
  /** What else is to be said of the result: fields for --json, and text for people. */
  readonly report?: { readonly fields: object; text(): string }
}

/** A job that was looked at from all sides: `ready` is there when nothing speaks against its parts. */
interface Prepared {
  readonly ready?: { readonly checkpoint: Checkpoint; readonly limits: PlanOptions; readonly plan: Plan }
  /** Of every kind together: inputs, options, plan, place of the output. */
  readonly problems: readonly Problem[]
}

/** Runs a job, or with --dry-run only says what it would do. Prints the result. */
export async function runJob(terminal: Terminal, job: Job, args: WriteArguments): Promise<void> {
  for (const warning of job.warnings) terminal.note(`warning ${formatProblem(warning)}`)
  const { ready, problems } = await prepare(job, args)
  if (args.dryRun) return showDryRun(terminal, job, args, ready?.plan, problems)
  throwIfAny(problems)
  const { checkpoint, limits, plan } = ready!
  if (args.plan !== undefined) return savePlan(terminal, checkpoint, plan, { ...args, plan: args.plan })
  const started = performance.now()
  const manifest = await untilCancelled((signal) =>
    writeOutput(terminal, checkpoint, job, args, { ...limits, signal }),
  )
  const elapsedMs = Math.round(performance.now() - started)
  const result = { out: args.out, elapsedMs, ...summary(plan), ...manifest, warnings: job.warnings }
  terminal.result({ ...result, ...job.report?.fields }, () =>
    [
      describeWritten(args.out, plan, manifest, elapsedMs, args.nonFinite),
      ...(job.report ? [job.report.text()] : []),
    ].join('\n'),
  )
}

async function prepare(job: Job, args: WriteArguments): Promise<Prepared> {
  const problems = [...job.problems, ...planOptionProblems(args)]
  const keep = (error: unknown) => {
    if (!(error instanceof ModelError)) throw error
    problems.push(...error.problems)
  }
  let ready: Prepared['ready']
  if (problems.length === 0) {
    try {
      const checkpoint = job.build()
      const limits = limitsOf(checkpoint, args)
      ready = { checkpoint, limits, plan: planCheckpoint(checkpoint, limits) }
    } catch (error) {
      keep(error)
    }
  }
  try {
    problems.push(...(await placeProblems(job, args, ready && spaceOf(ready.checkpoint, ready.plan))))
  } catch (error) {
    keep(error)
  }
  return { ...(ready ? { ready } : {}), problems }
}

/** What a plan does not hold. */
function planOptionProblems({ plan, nonFinite }: WriteArguments): Problem[] {
  if (plan === undefined || nonFinite === 'warn') return []
  return [
    {
      code: 'bad-option',
      message: '--non-finite says what is done when a checkpoint is published, and a plan is not there yet',
      received: `--non-finite ${nonFinite} with --plan`,
      next: 'Give it to polygraft finish.',
    },
  ]
}

/** Writes `checkpoint` to `args.out`, whole or not at all. */
async function writeOutput(
  terminal: Terminal,
  checkpoint: Checkpoint,
  { label, inputs }: Job,
  { out, force = false, nonFinite }: WriteArguments,
  options: PlanOptions & { readonly signal: AbortSignal },
): Promise<Manifest> {
  const states = inputStates(checkpoint)
  const plan = planCheckpoint(checkpoint, options)
  const key = planKey(checkpoint, plan, version, states)
  const folder = await resumeFolder(out, { force, inputs, key })
  const { earlier, journal } = folder.notes
  const begun = journal?.earlier.size ?? 0
  if (earlier.size + begun > 0)
    terminal.note(
      `going on with ${earlier.size} of ${plan.shards.length} shards that an earlier run finished${begun > 0 ? `, and ${begun} that it began` : ''}`,
    )
  const meter = terminal.progress(label)
  try {
    const manifest = await writeCheckpoint(checkpoint, folder, {
      ...options,
      version,
      onProgress: ({ bytesDone, bytesTotal }) => meter.update(bytesDone, bytesTotal),
    })
    options.signal.throwIfAborted()
    refuseNonFinite(manifest, nonFinite)
    checkInputStates(states)
    await folder.publish()
    meter.done()
    return manifest
  } catch (error) {
    meter.done()
    if (!options.signal.aborted) await folder.discard()
    throw options.signal.aborted ? await cancelled(folder) : error
  }
}

/** Keeps what is finished for the next run, if anything is. */
async function cancelled(folder: ResumableFolder): Promise<ModelError> {
  const { finished, begun } = await folder.leave()
  const next = 'The same command goes on from there.'
  return new ModelError(
    finished + begun === 0
      ? { code: 'cancelled', message: 'Cancelled; nothing was written' }
      : {
          code: 'cancelled',
          message: `Cancelled; kept ${plural(finished, 'finished shard')}${begun > 0 ? `, and ${begun} begun` : ''}`,
          file: folder.path,
          next,
        },
  )
}

// Starting threads takes longer than reading or writing this much.
const MIN_THREADED_BYTES = 64 * 2 ** 20

function limitsOf(checkpoint: Checkpoint, { maxShardSize, memory, threads }: WriteArguments): PlanOptions {
  const bytes = [...checkpoint.tensors.values()].reduce(
    (sum, { dtype, shape }) => sum + byteSize(dtype, numel(shape)),
    0,
  )
  return {
    maxShardBytes: maxShardSize,
    memoryBytes: memory,
    threads: threads ?? fittingThreads(checkpoint, threadsFor(bytes), memory),
  }
}

/** Threads for going over `bytes` of weights, where none are asked for. */
export function threadsFor(bytes: number): number {
  return bytes < MIN_THREADED_BYTES ? 0 : availableParallelism()
}

/** Measures over `tensors` with what --threads says, showing how far it is; Ctrl-C ends it. */
export async function measureWith<T>(
  terminal: Terminal,
  label: string,
  { threads }: Pick<WriteArguments, 'threads'>,
  tensors: Iterable<Tensor>,
  measure: (options: MeasureOptions) => Promise<T>,
): Promise<T> {
  const bytes = [...tensors].reduce((sum, { dtype, shape }) => sum + byteSize(dtype, numel(shape)), 0)
  const meter = terminal.progress(label)
  try {
    return await untilCancelled((signal) =>
      measure({
        threads: threads ?? threadsFor(bytes),
        signal,
        onProgress: ({ bytesDone, bytesTotal }) => meter.update(bytesDone, bytesTotal),
      }),
    )
  } finally {
    meter.done()
  }
}

/** Bytes that the output takes on the disk, but for config and manifest, which are small. */
function spaceOf({ files }: Checkpoint, { bytesWritten }: Plan): number {
  return [...files.values()].reduce((sum, { size }) => sum + size, bytesWritten)
}

async function placeProblems(
  { inputs }: Job,
  { out, force = false }: WriteArguments,
  space?: number,
): Promise<Problem[]> {
  const problems = await outputProblems(out, { force, inputs })
  const free = (await freeBytes(out)) + (await keptBytes(out))
  if (space !== undefined && free < space)
    problems.push({
      code: 'disk-full',
      message: 'Not enough free space for the output',
      file: out,
      expected: formatBytes(space),
      received: `${formatBytes(free)} free`,
      next: 'Free some space or choose another place.',
    })
  return problems
}

function showDryRun(
  terminal: Terminal,
  { warnings }: Job,
  { out }: WriteArguments,
  plan: Plan | undefined,
  problems: readonly Problem[],
): void {
  const result = { dryRun: true, out, ...(plan ? summary(plan) : {}), problems, warnings }
  terminal.result(result, () => describeDryRun(out, plan, problems))
  if (problems.length > 0) process.exitCode = 1
}

/** A plan's figures for --json. */
export function summary(plan: Plan) {
  const { parameters, bytesRead, bytesWritten, peakBytes } = plan
  return { parameters, bytesRead, bytesWritten, peakBytes, shardCount: plan.shards.length }
}

function describeDryRun(out: string, plan: Plan | undefined, problems: readonly Problem[]): string {
  const lines = [`would write ${out}`]
  if (plan) {
    lines.push(`  parameters  ${formatCount(plan.parameters)}`)
    lines.push(`  read        ${formatBytes(plan.bytesRead)}`)
    lines.push(`  written     ${formatBytes(plan.bytesWritten)} in ${plural(plan.shards.length, 'shard')}`)
    lines.push(`  memory      at most ${formatBytes(plan.peakBytes)}`)
  }
  lines.push(problems.length === 0 ? 'no problems found' : `${plural(problems.length, 'problem')} found:`)
  return [...lines, ...problems.map(formatProblem)].join('\n')
}

/** What was written, for people. */
export function describeWritten(
  out: string,
  plan: Plan,
  manifest: Manifest,
  elapsedMs: number,
  nonFinite: NonFinitePolicy,
): string {
  const seconds = elapsedMs / 1000
  const rate = (plan.bytesRead + plan.bytesWritten) / Math.max(1e-3, seconds)
  const lines = [
    `wrote ${out}: ${formatCount(plan.parameters)} parameters, ${formatBytes(plan.bytesWritten)} in ${plural(plan.shards.length, 'shard')}, ${seconds.toFixed(2)} s (${formatBytes(Math.round(rate))}/s read and written)`,
  ]
  if (manifest.experts)
    lines.push(`experts: ${manifest.experts.map((label, e) => `${e} ${label}`).join(', ')}`)
  if (manifest.delta) {
    const { changed, swallowed, swallowedFraction } = manifest.delta
    lines.push(
      `delta: ${formatCount(changed)} elements changed by post-training, ${formatCount(swallowed)} of them (${formatShare(swallowedFraction)}) too small for the dtype to show`,
    )
  }
  lines.push(...describeNonFinite(manifest, nonFinite))
  if (manifest.skipped.length > 0)
    lines.push(`skipped: ${manifest.skipped.map((s) => `${s.tensor} (${s.reason})`).join(', ')}`)
  return lines.join('\n')
}
