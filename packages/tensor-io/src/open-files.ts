import { type ByteSource, type Checkpoint, type Source, stateDictOf } from '@polygraft/tensor'
import { CONFIG, classify, MANIFEST } from './_classify.js'
import { parseProvenance } from './_provenance.js'
import { headerId, sampledId } from './_source-id.js'
import { readWeights } from './_weights.js'
import { readJsonObject } from './read-text.js'

export interface OpenOptions {
  /**
   * Whether the source's id samples the data (the default). Without, the id stands for this location and its headers
   * alone, and no tensor data is read: right where every read is a request.
   */
  readonly sample?: boolean
}

/**
 * Opens a checkpoint from the files of its folder. Reads headers, `config.json`, the index and a small sample of the
 * data, never whole tensors.
 *
 * Weights are those of `model.safetensors.index.json`, or `model.safetensors`, or the only other `*.safetensors`. Every
 * other file is carried along in `files`, except weights in other forms.
 *
 * @param files By path relative to the folder, with forward slashes. A `Blob` is a ByteSource.
 * @param location For messages and provenance.
 * @throws ModelError "no-weights", "ambiguous-weights", "pickle", "path-escape", "bad-index", "missing-shard",
 *   "missing-tensor", "unindexed-tensor", "duplicate-tensor", "bad-manifest"; and as `parseSafetensors`, `parseJson`.
 */
export async function openFiles(
  files: ReadonlyMap<string, ByteSource>,
  location: string,
  options: OpenOptions = {},
): Promise<Checkpoint> {
  const weights = await readWeights(files, location)
  const [config, manifest] = await Promise.all([readOptional(files, CONFIG), readOptional(files, MANIFEST)])
  const provenance = parseProvenance(manifest)
  const id = options.sample === false ? await headerId(weights, location) : await sampledId(weights)
  const source: Source = { id, location, ...weights }
  return {
    config: config ?? {},
    tensors: stateDictOf(source),
    files: new Map([...files].filter(([name]) => classify(name) === 'file')),
    sources: new Map([[id, source]]),
    provenance,
  }
}

async function readOptional(files: ReadonlyMap<string, ByteSource>, name: string) {
  const source = files.get(name)
  return source && readJsonObject(source, name)
}
