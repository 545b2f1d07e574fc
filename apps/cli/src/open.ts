import { type Checkpoint, ModelError } from '@polygraft/tensor'
import { openUrl } from '@polygraft/tensor-io'
import { openPath } from '@polygraft/tensor-io/node'

const HUB = 'https://huggingface.co'

/** How a checkpoint may be named on the command line, for help texts. */
export const CHECKPOINT_HELP = 'a folder, a .safetensors file, an https: URL or hf:org/name[@revision]'

/** Opens a checkpoint argument. Reads headers and small samples, no weights. */
export async function openCheckpoint(location: string): Promise<Checkpoint> {
  if (/^https?:\/\//.test(location)) return openUrl(location)
  if (location.startsWith('hf:')) return openUrl(hubUrl(location))
  return openPath(location)
}

/** Local paths among checkpoint arguments: an output may be neither inside nor around them. */
export function localPaths(locations: readonly (string | undefined)[]): string[] {
  return locations
    .filter((location) => location !== undefined)
    .filter((location) => !/^(https?:\/\/|hf:)/.test(location))
}

/** `hf:org/name@rev` as the address under which the Hub serves single files. HF_ENDPOINT names a mirror. */
export function hubUrl(location: string, endpoint = process.env.HF_ENDPOINT ?? HUB): string {
  const match = /^hf:([\w.-]+\/[\w.-]+)(?:@([\w./-]+))?$/.exec(location)
  if (!match)
    throw new ModelError({
      code: 'bad-location',
      message: 'Not a model on the Hub',
      expected: 'hf:org/name or hf:org/name@revision',
      received: location,
    })
  return `${endpoint.replace(/\/$/, '')}/${match[1]}/resolve/${encodeURIComponent(match[2] ?? 'main')}/`
}
