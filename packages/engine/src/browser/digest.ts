import type { ByteSource } from '@polygraft/tensor'
import { createSHA256 } from 'hash-wasm'

const CHUNK_BYTES = 4 * 2 ** 20

/**
 * SHA-256 of a whole file, in lower-case hexadecimal, read in chunks: the web's own digest wants all bytes at once.
 * @param onBytes told the size of each chunk as it is done. Unit: bytes.
 */
export async function digestFile(
  source: ByteSource,
  onBytes?: (bytes: number) => void,
  signal?: AbortSignal,
): Promise<string> {
  const hash = await createSHA256()
  for (let begin = 0; begin < source.size; begin += CHUNK_BYTES) {
    signal?.throwIfAborted()
    const end = Math.min(source.size, begin + CHUNK_BYTES)
    const bytes = new Uint8Array(await source.slice(begin, end).arrayBuffer())
    hash.update(bytes)
    onBytes?.(bytes.length)
  }
  return hash.digest('hex')
}
