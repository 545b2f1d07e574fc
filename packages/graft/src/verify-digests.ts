import { digestFile } from '@polygraft/engine'
import { type ByteSource, type JsonObject, type JsonValue, ModelError } from '@polygraft/tensor'
import { checkOf, reportOf, type VerifyOptions, type VerifyReport } from './verify-report.js'

interface Listed {
  readonly file: string
  readonly bytes: number
  readonly sha256: string
}

/**
 * Checks the files of a checkpoint, weights and all others, against the sizes and SHA-256 digests that its `polygraft.json`
 * lists.
 * @param manifest the parsed `polygraft.json`.
 * @param files by name. Of those that are not listed, only `*.safetensors` are told of.
 * @throws ModelError "bad-manifest" when the manifest lists no shards.
 */
export async function verifyDigests(
  manifest: JsonObject,
  files: ReadonlyMap<string, ByteSource>,
  { onProgress, signal }: Pick<VerifyOptions, 'onProgress' | 'signal'> = {},
): Promise<VerifyReport> {
  const listed = [...readListed(manifest.shards), ...readListed(manifest.files ?? [])]
  const total = listed.reduce((sum, { bytes }) => sum + bytes, 0)
  const wrong: string[] = []
  let done = 0
  for (const { file, bytes, sha256 } of listed) {
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
  const names = new Set(listed.map(({ file }) => file))
  for (const name of files.keys())
    if (name.endsWith('.safetensors') && !names.has(name)) wrong.push(`${name} is not in the manifest`)
  return reportOf([checkOf('digests', wrong, `${listed.length} files, ${total} bytes, as in polygraft.json`)])
}

function readListed(value: JsonValue | undefined): readonly Listed[] {
  if (Array.isArray(value) && value.every(isListed)) return value as unknown as readonly Listed[]
  throw new ModelError({
    code: 'bad-manifest',
    message: 'The manifest does not list files with their digests',
    file: 'polygraft.json',
    expected: '"shards": [{ "file", "bytes", "sha256" }]',
    received: JSON.stringify(value ?? null).slice(0, 80),
    next: 'Write the checkpoint again with polygraft.',
  })
}

function isListed(value: JsonValue): boolean {
  const listed = value as JsonObject | null
  return (
    typeof listed?.file === 'string' &&
    Number.isSafeInteger(listed.bytes) &&
    /^[0-9a-f]{64}$/.test(`${listed.sha256}`)
  )
}
