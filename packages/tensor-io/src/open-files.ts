import type { ByteSource, Checkpoint } from '@polygraft/tensor'
import { assemble } from './_assemble.js'
import { distinct } from './_distinct.js'
import { headerId, sampledId } from './_source-id.js'

/** How a checkpoint is opened. */
export interface OpenOptions {
  /**
   * Whether the source's id samples the data (the default). Without, the id stands for this location and its headers
   * alone, and no tensor data is read: right where every read is a request.
   */
  readonly sample?: boolean
}

/**
 * Opens a checkpoint from the files of its folder. Reads headers, `config.json`, the index and a small sample of the
 * data, never whole tensors: unless another checkpoint in use has the same sample in other files, when the two are
 * compared up to their first difference, so that equal ids always mean equal tensors.
 *
 * Weights are those of `model.safetensors.index.json`, or `model.safetensors`, or the only other `*.safetensors`. Every
 * other file is carried along in `files`, except weights in other forms.
 *
 * @param files By path relative to the folder, with forward slashes. A `Blob` is a ByteSource.
 * @param location For messages and provenance.
 * @throws ModelError "no-weights", "ambiguous-weights", "pickle", "path-escape", "bad-index", "missing-shard",
 *   "missing-tensor", "unindexed-tensor", "duplicate-tensor", "bad-manifest"; and as `parseSafetensors`, `parseJson`.
 */
export function openFiles(
  files: ReadonlyMap<string, ByteSource>,
  location: string,
  options: OpenOptions = {},
): Promise<Checkpoint> {
  const { sample = true } = options
  return assemble(files, location, async (source) => {
    const id = sample ? await sampledId(source) : await headerId(source, location)
    return distinct({ ...source, id }, sample)
  })
}
