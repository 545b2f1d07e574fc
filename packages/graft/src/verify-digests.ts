import { digestFile } from '@polygraft/engine'
import { type ByteSource, type JsonObject, type JsonValue, ModelError } from '@polygraft/tensor'
import { checkOf, reportOf, type VerifyOptions, type VerifyReport } from './verify-report.js'

interface Shard {
  readonly file: string
  readonly bytes: number
  readonly sha256: string
}

/**
 * Checks the safetensors files of a checkpoint against the sizes and SHA-256 digests that its `polygraft.json` lists.
 * @param manifest the parsed `polygraft.json`.
 * @param files by name; those that are no `*.safetensors` are passed over. `shards` of an opened checkpoint's source serve.
 * @throws ModelError "bad-manifest" when the manifest lists no shards.
 */
export async function verifyDigests(
  manifest: JsonObject,
  files: ReadonlyMap<string, ByteSource>,
  { onProgress, signal }: Pick<VerifyOptions, 'onProgress' | 'signal'> = {},
): Promise<VerifyReport> {
  const shards = readShards(manifest)
  const total = shards.reduce((sum, { bytes }) => sum + bytes, 0)
  const wrong: string[] = []
  let done = 0
  for (const { file, bytes, sha256 } of shards) {
    const source = files.get(file)
    if (!source) wrong.push(`${file} is not there`)
    else if (source.size !== bytes) wrong.push(`${file} has ${source.size} bytes in place of ${bytes}`)
    else {
      const count = (more: number) => {
        done += more
        onProgress?.(done, total)
      }
      if ((await digestFile(source, count, signal)) !== sha256) wrong.push(`${file} has another SHA-256`)
    }
  }
  const listed = new Set(shards.map(({ file }) => file))
  for (const name of files.keys())
    if (name.endsWith('.safetensors') && !listed.has(name)) wrong.push(`${name} is not in the manifest`)
  return reportOf([checkOf('digests', wrong, `${shards.length} files, ${total} bytes, as in polygraft.json`)])
}

function readShards({ shards }: JsonObject): readonly Shard[] {
  if (Array.isArray(shards) && shards.every(isShard)) return shards as unknown as readonly Shard[]
  throw new ModelError({
    code: 'bad-manifest',
    message: 'The manifest does not list shards with their digests',
    file: 'polygraft.json',
    expected: '"shards": [{ "file", "bytes", "sha256" }]',
    received: JSON.stringify(shards ?? null).slice(0, 80),
    next: 'Write the checkpoint again with polygraft.',
  })
}

function isShard(value: JsonValue): boolean {
  const shard = value as JsonObject | null
  return (
    typeof shard?.file === 'string' &&
    Number.isSafeInteger(shard.bytes) &&
    /^[0-9a-f]{64}$/.test(`${shard.sha256}`)
  )
}
