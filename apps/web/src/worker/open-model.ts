import { countParameters, dimensionsOf, roleOf } from '@polygraft/architectures'
import { familyOrNone } from '@polygraft/delta'
import { type ByteSource, byteSize, type Checkpoint, ModelError, numel } from '@polygraft/tensor'
import { hubUrl, openFiles, openUrl } from '@polygraft/tensor-io'
import type { Model, Opening, TensorRow } from './api.js'
import { openWhole } from './open-whole.js'
import { readOutput } from './output-folder.js'

/** Checkpoints whose servers cannot send parts. */
const fetchedWhole = new WeakSet<Checkpoint>()

// The worker's own file lies in `assets/`, beside it.
const TRIO = new URL('../trio/', self.location.href)

/**
 * Opens a checkpoint: headers, config and what `openFiles` samples.
 * @throws ModelError as `openFiles` and `openUrl`.
 */
export async function openCheckpoint(opening: Opening): Promise<Checkpoint> {
  if (opening.kind === 'files') return openFiles(withoutFolder(opening.files), opening.name)
  if (opening.kind === 'output') return openFiles(await readOutput(opening.name), opening.name)
  if (opening.kind === 'trio') return openTrio(opening.name)
  const { location } = opening
  const url = location.startsWith('hf:') ? hubUrl(location) : location
  return explained(() => openUrl(url).catch((error: unknown) => instead(url, error)))
}

/** The tiny checkpoints of the site, whole: they are small, and any web server serves them. */
async function openTrio(name: string): Promise<Checkpoint> {
  const listed: Record<string, string[]> = await (await fetched(new URL('files.json', TRIO))).json()
  const files = new Map<string, ByteSource>()
  for (const file of listed[name] ?? [])
    files.set(file, await (await fetched(new URL(`${name}/${file}`, TRIO))).blob())
  return openFiles(files, `tools/trio/checkpoints/${name}`)
}

async function fetched(url: URL): Promise<Response> {
  const response = await fetch(url)
  if (response.ok) return response
  const received = `status ${response.status}`
  throw new ModelError({ code: 'http-status', message: 'The server refused', file: url.pathname, received })
}

/** A server without ranges is asked for whole files. */
async function instead(url: string, error: unknown): Promise<Checkpoint> {
  if (!(error instanceof ModelError && error.code === 'no-ranges')) throw error
  const checkpoint = await openWhole(url)
  fetchedWhole.add(checkpoint)
  return checkpoint
}

/** A page may read another server only where that says so, and is not told that this is the reason. */
async function explained(open: () => Promise<Checkpoint>): Promise<Checkpoint> {
  try {
    return await open()
  } catch (error) {
    if (!(error instanceof ModelError && error.code === 'network')) throw error
    const next =
      'Is the address right? For pages, the server must send "Access-Control-Allow-Origin: *", allow the header Range and expose Content-Range and ETag. Otherwise download the checkpoint and open its folder.'
    throw new ModelError(
      error.problems.map((problem) => ({ ...problem, next })),
      { cause: error },
    )
  }
}

/** A picked folder's files come with its name in front. */
function withoutFolder(files: ReadonlyMap<string, Blob>): ReadonlyMap<string, ByteSource> {
  const tops = new Set([...files.keys()].map((path) => path.split('/')[0]))
  const isNested = tops.size === 1 && [...files.keys()].every((path) => path.includes('/'))
  if (!isNested) return files
  return new Map([...files].map(([path, file]) => [path.slice(path.indexOf('/') + 1), file]))
}

/** What a checkpoint's headers and config say. Reads nothing. */
export function describeModel(key: string, name: string, checkpoint: Checkpoint): Model {
  const { config, provenance, sources } = checkpoint
  const tensors = rowsOf(checkpoint)
  const shards = [...sources.values()].flatMap((source) => [...source.shards])
  return {
    key,
    name,
    location: [...sources.values()][0]?.location ?? name,
    architecture: Array.isArray(config.architectures) ? config.architectures.join(', ') : '',
    ...familyFacts(checkpoint),
    parameters: tensors.reduce((sum, { shape }) => sum + numel(shape), 0),
    bytes: tensors.reduce((sum, { bytes }) => sum + bytes, 0),
    fileCount: shards.length,
    isFetchedWhole: fetchedWhole.has(checkpoint),
    dtypes: [...new Set(tensors.map(({ dtype }) => dtype))],
    ...(provenance.experts ? { experts: provenance.experts } : {}),
    madeBy: provenance.recipe.map(({ op }) => String(op)),
    tensors,
  }
}

function familyFacts(
  checkpoint: Checkpoint,
): Pick<Model, 'familyProblem' | 'active' | 'numExperts' | 'topK'> {
  const family = familyOrNone(checkpoint)
  if (!family) return { familyProblem: String(checkpoint.config.model_type ?? '') }
  if (!family.moe) return {}
  try {
    const { active } = countParameters(family, checkpoint.config)
    const { numExperts, topK } = dimensionsOf(family, checkpoint.config)
    return { active, numExperts, topK }
  } catch (error) {
    if (error instanceof ModelError) return { familyProblem: error.problems[0]!.message }
    throw error
  }
}

function rowsOf(checkpoint: Checkpoint): TensorRow[] {
  const family = familyOrNone(checkpoint)
  return [...checkpoint.tensors].map(([name, { dtype, shape }]) => {
    const { group, layer, expert } = family ? roleOf(family, name) : { group: 'other' as const }
    const place = { ...(layer === undefined ? {} : { layer }), ...(expert === undefined ? {} : { expert }) }
    return { name, dtype, shape, bytes: byteSize(dtype, numel(shape)), group, ...place }
  })
}
