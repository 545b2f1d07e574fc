import { appendFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { DEFAULT_MAX_SHARD_BYTES, DEFAULT_MEMORY_BYTES, writeCheckpoint } from '@polygraft/engine'
import { type Checkpoint, type JsonObject, ModelError, type Problem } from '@polygraft/tensor'
import { createFolder, fsError } from '@polygraft/tensor-io/node'
import { formatEvent, formatEventFileStart, STATE_FILE, type StepReport } from '@polygraft/train'
import { version } from '../package.json'

const KEPT_CHECKPOINTS = 2
const RUN_FILE = 'run.json'
const LOG_FILE = 'log.jsonl'
const CHECKPOINT = /^step-(\d{8})$/

/** A line of the log. */
type LogLine = StepReport & { readonly tokensPerSecond: number }

/** The folder beside the output in which a run keeps its log, its events and its latest checkpoints. */
export interface TrainFolder {
  readonly path: string
  /** The latest whole checkpoint of an earlier run: its state's file. */
  readonly state?: string
  /** The loss of the run's first step, where an earlier run did it. */
  readonly firstLoss?: number
  log(line: LogLine): Promise<void>
  /** Writes a checkpoint with the state to go on from, whole or not at all; then removes those before the last two. */
  save(checkpoint: Checkpoint, step: number, state: Uint8Array): Promise<void>
}

/** Where a run with output `out` keeps its things. */
function trainFolderOf(out: string): string {
  return `${out.replace(/\/+$/, '')}.run`
}

/**
 * Begins the run's folder, or goes on with it.
 * @param key What the run is made of; a run goes on only where all of it is the same.
 * @throws ModelError "exists" where there is an earlier run and neither `resume` nor `force` says what to do with it; "no-run";
 *   "other-run" with every field that differs.
 */
export async function openTrainFolder(
  out: string,
  key: JsonObject,
  { resume, force }: { readonly resume: boolean; readonly force: boolean },
): Promise<TrainFolder> {
  const path = trainFolderOf(out)
  const earlier = await readFile(join(path, RUN_FILE), 'utf8').catch(() => undefined)
  if (resume) checkEarlier(earlier, key, path)
  else if (earlier !== undefined && force) await rm(path, { recursive: true, force: true })
  else if (earlier !== undefined)
    throw new ModelError({
      code: 'exists',
      message: 'An earlier run is there',
      received: path,
      next: 'Go on with it with --resume, or begin anew with --force.',
    })
  try {
    await mkdir(path, { recursive: true })
    if (!resume) await writeFile(join(path, RUN_FILE), `${JSON.stringify(key, null, 2)}\n`)
    const steps = await checkpointsOf(path)
    const last = steps.at(-1)
    const lines = await truncateLog(join(path, LOG_FILE), last === undefined ? 0 : stepOf(last))
    return await folderOf(path, last, lines)
  } catch (cause) {
    throw fsError(cause, "The run's folder cannot be made", path)
  }
}

async function folderOf(
  path: string,
  last: string | undefined,
  lines: readonly LogLine[],
): Promise<TrainFolder> {
  const events = join(path, `events.out.tfevents.${Math.floor(now())}.${hostname()}.${process.pid}`)
  await writeFile(events, formatEventFileStart(now()))
  return {
    path,
    ...(last === undefined ? {} : { state: join(path, last, STATE_FILE) }),
    ...(lines[0] ? { firstLoss: lines[0].loss } : {}),
    async log(line) {
      try {
        await appendFile(join(path, LOG_FILE), `${JSON.stringify(line)}\n`)
        await appendFile(events, formatEvent(now(), line.step, scalarsOf(line)))
      } catch (cause) {
        throw fsError(cause, 'The log cannot be written', path)
      }
    },
    async save(checkpoint, step, state) {
      const folder = await createFolder(join(path, `step-${String(step).padStart(8, '0')}`), { force: true })
      try {
        const limits = { maxShardBytes: DEFAULT_MAX_SHARD_BYTES, memoryBytes: DEFAULT_MEMORY_BYTES }
        await writeCheckpoint(checkpoint, folder, { ...limits, version })
        await folder.writeFile(STATE_FILE, state)
        await folder.publish()
      } catch (error) {
        await folder.discard()
        throw error
      }
      for (const old of (await checkpointsOf(path)).slice(0, -KEPT_CHECKPOINTS))
        await rm(join(path, old), { recursive: true, force: true })
    },
  }
}

function checkEarlier(text: string | undefined, key: JsonObject, path: string): void {
  if (text === undefined)
    throw new ModelError({
      code: 'no-run',
      message: 'There is no run to go on with',
      received: path,
      next: 'Leave --resume out.',
    })
  const begun = JSON.parse(text) as JsonObject
  const problems = Object.keys({ ...begun, ...key })
    .filter((name) => JSON.stringify(begun[name]) !== JSON.stringify(key[name]))
    .map(
      (name): Problem => ({
        code: 'other-run',
        message: `The run was begun with another ${name}`,
        file: join(path, RUN_FILE),
        expected: JSON.stringify(begun[name]) ?? 'nothing',
        received: JSON.stringify(key[name]) ?? 'nothing',
        next: 'Go on with what the run was begun with, or begin anew with --force.',
      }),
    )
  if (problems.length > 0) throw new ModelError(problems)
}

/** Whole checkpoints in order; what a killed run left of one is removed. */
async function checkpointsOf(path: string): Promise<readonly string[]> {
  const names = await readdir(path)
  for (const name of names)
    if (name.startsWith('.step-')) await rm(join(path, name), { recursive: true, force: true })
  return names.filter((name) => CHECKPOINT.test(name)).sort()
}

function stepOf(name: string): number {
  return Number(CHECKPOINT.exec(name)![1])
}

/** Keeps the lines up to `step`; a killed run may have logged more, the last line half. */
async function truncateLog(file: string, step: number): Promise<readonly LogLine[]> {
  const text = await readFile(file, 'utf8').catch(() => '')
  const kept = text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as LogLine)
    .filter((line) => line.step <= step)
  await writeFile(file, kept.map((line) => `${JSON.stringify(line)}\n`).join(''))
  return kept
}

function scalarsOf({ loss, rate, gradientNorm, tokensPerSecond, load }: LogLine): Record<string, number> {
  const experts = load.map((share, e) => [`load/expert_${e}`, share] as const)
  return {
    'train/loss': loss,
    'train/learning_rate': rate,
    'train/gradient_norm': gradientNorm,
    'train/tokens_per_second': tokensPerSecond,
    ...Object.fromEntries(experts),
  }
}

/** Unit: seconds. */
function now(): number {
  return Date.now() / 1000
}
