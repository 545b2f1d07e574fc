import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MANIFEST_FILE } from '@polygraft/engine'
import { type JsonObject, type JsonValue, ModelError } from '@polygraft/tensor'
import { isJsonObject, parseJson } from '@polygraft/tensor-io'

/**
 * The manifest of a checkpoint folder on this machine.
 * @throws ModelError 'missing-manifest', or 'bad-manifest' where the digests to check are not there.
 */
export async function readManifest(folder: string): Promise<JsonObject> {
  const file = join(folder, MANIFEST_FILE)
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    const problem = {
      code: 'missing-manifest',
      message: 'The manifest, which lists the digests to check, cannot be read',
      file,
      next: 'Give a folder on this machine that polygraft has written.',
    }
    throw new ModelError(problem, { cause })
  })
  const manifest = parseJson(text, file)
  if (!isJsonObject(manifest) || !Array.isArray(manifest.shards) || !manifest.shards.every(isShard))
    throw new ModelError({
      code: 'bad-manifest',
      message: 'The manifest does not list shards with their digests',
      file,
      expected: '"shards": [{ "file", "bytes", "sha256" }, ...]',
      next: 'Was it edited? Write the checkpoint again.',
    })
  return manifest
}

function isShard(value: JsonValue): boolean {
  if (!isJsonObject(value)) return false
  return typeof value.file === 'string' && typeof value.bytes === 'number' && typeof value.sha256 === 'string'
}
