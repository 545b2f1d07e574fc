import { resolve } from 'node:path'
import {
  type ByteSource,
  type Checkpoint,
  type JsonObject,
  ModelError,
  type Provenance,
  type Source,
  type Tensor,
  throwIfAny,
} from '@polygraft/tensor'
import type { PlanOptions } from '../plan.js'
import { createDigest } from './digest.js'
import { changedInputs, inputStates } from './input-states.js'

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
  /** The inputs: by id, as they were named (which `polygraft.json` records), and where any folder's task opens them. */
  readonly sources: readonly { readonly id: string; readonly location: string; readonly opened: string }[]
  readonly config: JsonObject
  readonly floatFields: readonly string[]
  readonly weightsName?: string
  readonly provenance: Provenance
  readonly tensors: readonly (readonly [name: string, tensor: Tensor])[]
  /** Carried files: by path, or their bytes in base64. */
  readonly files: readonly (readonly [
    name: string,
    file: { readonly path: string } | { readonly base64: string },
  ])[]
}

const RESTORE = 'Restore the input, or make the plan again.'

/** The parts of a plan file that describe `checkpoint`. */
export async function describeCheckpoint(
  checkpoint: Checkpoint,
): Promise<
  Pick<
    PlanFile,
    'states' | 'sources' | 'config' | 'floatFields' | 'weightsName' | 'provenance' | 'tensors' | 'files'
  >
> {
  const { config, floatFields = [], weightsName, provenance, tensors, sources, files } = checkpoint
  const carried = [...files].map(async ([name, bytes]) => [name, await describeFile(bytes)] as const)
  return {
    states: [...inputStates(checkpoint)],
    sources: [...sources.values()].map(({ id, location }) => ({
      id,
      location,
      opened: absolute(location),
    })),
    config,
    floatFields,
    ...(weightsName === undefined ? {} : { weightsName }),
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
 * @param open opens a source where its `opened` says, e.g. `openPath` of tensor-io.
 * @param openFile opens a carried file by its path.
 * @throws ModelError 'changed' listing every input file that is not what it was, 'plan-inputs' for an input with another
 *   id than planned.
 */
export async function reopenPlan(
  plan: PlanFile,
  open: (location: string) => Promise<Checkpoint>,
  openFile: (path: string) => ByteSource,
): Promise<Checkpoint> {
  const message = 'An input is not what it was when the plan was made'
  throwIfAny(changedInputs(new Map(plan.states), message, RESTORE))
  const sources = new Map<string, Source>()
  for (const { id, location, opened } of plan.sources) {
    const source = [...(await open(opened)).sources.values()][0]
    if (source?.id !== id)
      throw new ModelError({
        code: 'plan-inputs',
        message: 'An input is not the one that was planned with',
        file: opened,
        expected: id,
        received: source?.id ?? 'no weights',
        next: RESTORE,
      })
    sources.set(id, { ...source, location })
  }
  const files = plan.files.map(
    ([name, file]) => [name, 'path' in file ? openFile(file.path) : bytesOf(file.base64)] as const,
  )
  const { config, floatFields, weightsName, provenance, tensors } = plan
  return {
    config,
    floatFields,
    ...(weightsName === undefined ? {} : { weightsName }),
    provenance,
    tensors: new Map(tensors),
    sources,
    files: new Map(files),
  }
}

function bytesOf(base64: string): Blob {
  return new Blob([Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))])
}

/** A plan as the text of a file, closed by a digest of all before it: tasks must not differ by an edit between them. */
export function formatPlan(plan: PlanFile): string {
  return `${JSON.stringify({ ...plan, digest: digestOf(plan) })}\n`
}

function digestOf(plan: PlanFile): string {
  const digest = createDigest()
  digest.update(new TextEncoder().encode(JSON.stringify(plan)))
  return digest.hex()
}

/**
 * The plan that `formatPlan` made `text` of.
 * @throws ModelError 'bad-plan' when it is none or was edited, 'plan-version' when another version of the program made it.
 */
export function parsePlan(text: string, file: string, version: string): PlanFile {
  const { digest, ...plan } = parse(text)
  if (plan.polygraft?.plan !== 1)
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
  const received = digestOf(plan)
  if (received !== digest)
    throw new ModelError({
      code: 'bad-plan',
      message: 'The plan is not as it was saved',
      file,
      expected: `SHA-256 ${digest}`,
      received: `SHA-256 ${received}`,
      next: 'Make the plan again with the options that you want.',
    })
  return plan
}

function parse(text: string): PlanFile & { readonly digest?: unknown } {
  try {
    return JSON.parse(text) ?? {}
  } catch {
    return {} as PlanFile
  }
}

/** The shards of task `task` of `tasks`, counted from 1: every `tasks`-th one, so that all get about as many. */
export function shardsOfTask(shardCount: number, task: number, tasks: number): ReadonlySet<number> {
  const all = Array.from({ length: shardCount }, (_, shard) => shard)
  return new Set(all.filter((shard) => shard % tasks === task - 1))
}
