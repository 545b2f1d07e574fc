import { type Checkpoint, ModelError, type Problem, throwIfAny } from '@polygraft/tensor'
import { hubUrl, openUrl } from '@polygraft/tensor-io'
import { openPath } from '@polygraft/tensor-io/node'

/** How a checkpoint may be named on the command line, for help texts. */
export const CHECKPOINT_HELP = 'a folder, a .safetensors file, an https: URL or hf:org/name[@revision]'

/**
 * Opens a checkpoint argument. Reads headers and small samples, no weights.
 * @throws ModelError whose files are named from where the user stands, not from inside of the checkpoint.
 */
export async function openCheckpoint(location: string): Promise<Checkpoint> {
  try {
    if (/^https?:\/\//.test(location)) return await openUrl(location)
    if (location.startsWith('hf:'))
      return await openUrl(hubUrl(location, process.env.HF_ENDPOINT), { headers: hubHeaders() })
    return await openPath(location)
  } catch (error) {
    if (!(error instanceof ModelError)) throw error
    throw new ModelError(
      error.problems.map((problem) => placed(problem, location)),
      { cause: error },
    )
  }
}

/**
 * Opens several checkpoint arguments.
 * @throws ModelError with the problems of all of them together.
 */
export async function openCheckpoints<T extends readonly string[]>(
  ...locations: T
): Promise<{ [K in keyof T]: Checkpoint }> {
  const results = await Promise.allSettled(locations.map(openCheckpoint))
  const problems: Problem[] = []
  const opened = results.map((result) => {
    if (result.status === 'fulfilled') return result.value
    if (!(result.reason instanceof ModelError)) throw result.reason
    problems.push(...result.reason.problems)
    return undefined
  })
  throwIfAny(problems)
  return opened as { [K in keyof T]: Checkpoint }
}

const HUB_NAME = /^\w[\w.-]*\/\w[\w.-]*$/

/** `problem` with its file named from where the user stands: of several checkpoints it tells which. */
function placed(problem: Problem, location: string): Problem {
  const { file, code } = problem
  const isHub = location.startsWith('hf:')
  if (code === 'missing-file' && file === location && HUB_NAME.test(location))
    return { ...problem, next: `If it is a model on the Hub, write hf:${location}` }
  if (code === 'http-status' && isHub && problem.next !== undefined)
    return {
      ...problem,
      next: 'If it is gated, accept its terms on the Hub and put an access token into HF_TOKEN.',
    }
  if (code === 'no-weights' && isHub)
    return {
      ...problem,
      received: location,
      next: 'Check the name and the revision; only safetensors can be read.',
    }
  if (file === undefined) return problem.received === location ? problem : { ...problem, file: location }
  if (file.startsWith('/') || file.startsWith(location) || /^https?:/.test(file)) return problem
  const single = location.endsWith('.safetensors')
  const folder = single ? location.slice(0, location.lastIndexOf('/') + 1) : `${location.replace(/\/$/, '')}/`
  return { ...problem, file: `${folder}${file}` }
}

/** Local paths among checkpoint arguments: an output may be neither inside nor around them. */
export function localPaths(locations: readonly (string | undefined)[]): string[] {
  return locations
    .filter((location) => location !== undefined)
    .filter((location) => !/^(https?:\/\/|hf:)/.test(location))
}

/** Gated and private models need a token; other servers never see it. */
function hubHeaders(): Record<string, string> {
  const token = process.env.HF_TOKEN
  return token ? { authorization: `Bearer ${token}` } : {}
}
