import { resolve } from 'node:path'
import {
  type ByteSource,
  type Checkpoint,
  type JsonObject,
  ModelError,
  type Provenance,
  type Source,
  type Tensor,
} from '@polygraft/tensor'
import type { PlanOptions } from '../plan.js'
import { checkInputStates, inputStates } from './input-states.js'

/** A write that was planned and is to be run later, in parts, perhaps elsewhere. Plain JSON. */
export interface PlanFile {
  readonly polygraft: { readonly plan: 1; readonly version: string }
  /** What the plan will write, see `planKey`; tasks of different plans do not mix. */
  readonly key: string
  /** The output folder, absolute. */
  readonly out: string
  readonly force: boolean
  readonly limits: Required<Pick<PlanOptions, 'maxShardBytes' | 'memoryBytes'>>
  readonly shardCount: number
  readonly bytesWritten: number
  /** Size and time of change of each input file when the plan was made. */
  readonly states: readonly (readonly [path: string, state: string])[]
  /** The inputs' ids and where they are opened. */
  readonly sources: readonly { readonly id: string; readonly location: string }[]
  readonly config: JsonObject
  readonly provenance: Provenance
  readonly tensors: readonly (readonly [name: string, tensor: Tensor])[]
  /** Carried files: by path, or their bytes in base64. */
  readonly files: readonly (readonly [
    name: string,
    file: { readonly path: string } | { readonly base64: string },
  ])[]
}

/** The parts of a plan file that describe `checkpoint`. */
export async function describeCheckpoint(
  checkpoint: Checkpoint,
): Promise<Pick<PlanFile, 'states' | 'sources' | 'config' | 'provenance' | 'tensors' | 'files'>> {
  const { config, provenance, tensors, sources, files } = checkpoint
  const carried = [...files].map(async ([name, bytes]) => [name, await describeFile(bytes)] as const)
  return {
    states: [...inputStates(checkpoint)],
    sources: [...sources.values()].map(({ id, location }) => ({ id, location: absolute(location) })),
    config,
    provenance,
    tensors: [...tensors],
    files: await Promise.all(carried),
  }
}

/** Tasks may be run from any folder. */
function absolute(location: string): string {
  return /^https?:/.test(location) ? location : resolve(location)
}

async function describeFile(bytes: ByteSource): Promise<PlanFile['files'][number][1]> {
  if (bytes.path !== undefined) return { path: resolve(bytes.path) }
  const binary = Array.from(new Uint8Array(await bytes.arrayBuffer()), (byte) =>
    String.fromCharCode(byte),
  ).join('')
  return { base64: btoa(binary) }
}

/**
 * The checkpoint that a plan describes, its inputs opened again.
 * @param open opens a location of `plan.sources`, e.g. `openPath` of tensor-io.
 * @param openFile opens a carried file by its path.
 * @throws ModelError 'changed' listing every input file that is not what it was, 'plan-inputs' for an input with another
 *   id than planned.
 */
export async function reopenPlan(
  plan: PlanFile,
  open: (location: string) => Promise<Checkpoint>,
  openFile: (path: string) => ByteSource,
): Promise<Checkpoint> {
  checkInputStates(new Map(plan.states))
  const sources = new Map<string, Source>()
  for (const { id, location } of plan.sources) {
    const source = [...(await open(location)).sources.values()][0]
    if (source?.id !== id)
      throw new ModelError({
        code: 'plan-inputs',
        message: 'An input is not the one that was planned with',
        file: location,
        expected: id,
        received: source?.id ?? 'no weights',
        next: 'Restore the input, or make the plan again.',
      })
    sources.set(id, source)
  }
  const files = plan.files.map(
    ([name, file]) => [name, 'path' in file ? openFile(file.path) : bytesOf(file.base64)] as const,
  )
  const { config, provenance, tensors } = plan
  return { config, provenance, tensors: new Map(tensors), sources, files: new Map(files) }
}

function bytesOf(base64: string): Blob {
  return new Blob([Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))])
}

/**
 * A plan file's text as a plan.
 * @throws ModelError 'bad-plan' when it is none, 'plan-version' when another version of the program made it.
 */
export function parsePlan(text: string, file: string, version: string): PlanFile {
  const plan = parse(text)
  if (plan?.polygraft?.plan !== 1 || !Array.isArray(plan.tensors))
    throw new ModelError({
      code: 'bad-plan',
      message: 'This is no plan',
      file,
      expected: 'what --plan of a writing command saved',
      received: text.slice(0, 60),
    })
  if (plan.polygraft.version !== version)
    throw new ModelError({
      code: 'plan-version',
      message: 'The plan was made by another version of polygraft, whose bytes may differ',
      file,
      expected: version,
      received: plan.polygraft.version,
      next: 'Make the plan again with this version.',
    })
  return plan
}

function parse(text: string): PlanFile | undefined {
  try {
    return JSON.parse(text) as PlanFile
  } catch {
    return undefined
  }
}

/** The shards of task `task` of `tasks`, counted from 1: every `tasks`-th one, so that all get about as many. */
export function shardsOfTask(shardCount: number, task: number, tasks: number): ReadonlySet<number> {
  const all = Array.from({ length: shardCount }, (_, shard) => shard)
  return new Set(all.filter((shard) => shard % tasks === task - 1))
}
