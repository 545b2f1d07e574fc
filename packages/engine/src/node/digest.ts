import { createHash, type Hash } from 'node:crypto'
import type { ByteSource } from '@polygraft/tensor'

const CHUNK_BYTES = 4 * 2 ** 20

/** Running SHA-256. */
export interface Digest {
  update(bytes: Uint8Array): void
  /** Lower-case hexadecimal; ends the digest. */
  hex(): string
  /** One that goes on from here by itself. */
  copy(): Digest
}

/** A running SHA-256, empty. */
export function createDigest(): Digest {
  return digestOf(createHash('sha256'))
}

function digestOf(hash: Hash): Digest {
  return {
    update: (bytes) => void hash.update(bytes),
    hex: () => hash.digest('hex'),
    copy: () => digestOf(hash.copy()),
  }
}

/**
 * SHA-256 of a whole file, in lower-case hexadecimal, read in chunks.
 * @param onBytes told the size of each chunk as it is done. Unit: bytes.
 */
export async function digestFile(
  source: ByteSource,
  onBytes?: (bytes: number) => void,
  signal?: AbortSignal,
): Promise<string> {
  const digest = createDigest()
  for (let begin = 0; begin < source.size; begin += CHUNK_BYTES) {
    signal?.throwIfAborted()
    const end = Math.min(source.size, begin + CHUNK_BYTES)
    const bytes = new Uint8Array(await source.slice(begin, end).arrayBuffer())
    digest.update(bytes)
    onBytes?.(bytes.length)
  }
  return digest.hex()
}
