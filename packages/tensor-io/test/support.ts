import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type ByteSource, byteSize, type DType, ModelError, numel } from '@polygraft/tensor'
import { formatIndex, formatSafetensors, layoutShards, type TensorSpec } from '@polygraft/tensor-io'

type Named = readonly [string, TensorSpec]

/** A tensor as the golden cases list it. */
export type GoldenTensor = readonly [name: string, dtype: DType, shape: readonly number[]]
interface Cases {
  readonly files: readonly {
    readonly file: string
    readonly tensors: readonly GoldenTensor[]
    readonly metadata: Record<string, string>
  }[]
  readonly folders: readonly {
    readonly folder: string
    readonly tensors: readonly GoldenTensor[]
    readonly maxShardBytes: number
  }[]
}

export const goldenFolder = fileURLToPath(new URL('golden/', import.meta.url))
export const cases: Cases = JSON.parse(readFileSync(`${goldenFolder}cases.json`, 'utf8'))

export function golden(name: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(readFileSync(goldenFolder + name))
}

export function specs(tensors: readonly GoldenTensor[]): Named[] {
  return tensors.map(([name, dtype, shape]) => [name, { dtype, shape }])
}

/** The golden files' data: 0, 1, 2, ... modulo 251 in every tensor. */
export function pattern(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => i % 251)
}

/** A whole safetensors file with the golden files' data. */
export function fileOf(tensors: Iterable<Named>, metadata?: Record<string, string>): Uint8Array<ArrayBuffer> {
  const { header, tensors: ranges, size } = formatSafetensors(tensors, metadata)
  const bytes = new Uint8Array(size)
  bytes.set(header)
  for (const { begin, end } of ranges.values()) bytes.set(pattern(end - begin), begin)
  return bytes
}

/** Bytes of a file with any header, right or wrong. @param length What the length field says. */
export function rawFile(
  header: string | Uint8Array,
  dataBytes = 0,
  length?: bigint,
): Uint8Array<ArrayBuffer> {
  const json = typeof header === 'string' ? new TextEncoder().encode(header) : header
  const bytes = new Uint8Array(8 + json.length + dataBytes)
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(json.length), true)
  bytes.set(json, 8)
  return bytes
}

/** A folder in memory: shards of at most `maxShardBytes`, the index if there are several, and `extra`. */
export function folderOf(
  tensors: Iterable<Named>,
  maxShardBytes = Number.POSITIVE_INFINITY,
  extra: Record<string, string> = {},
): Map<string, Uint8Array<ArrayBuffer>> {
  const layouts = layoutShards(tensors, maxShardBytes)
  const files = new Map<string, Uint8Array<ArrayBuffer>>()
  for (const { file, header, tensors: ranges, size } of layouts) {
    const bytes = new Uint8Array(size)
    bytes.set(header)
    for (const { begin, end } of ranges.values()) bytes.set(pattern(end - begin), begin)
    files.set(file, bytes)
  }
  const texts =
    layouts.length > 1 ? { 'model.safetensors.index.json': formatIndex(layouts), ...extra } : extra
  for (const [name, text] of Object.entries(texts)) files.set(name, new TextEncoder().encode(text))
  return files
}

/** Blobs, which are ByteSources as they are. */
export function blobs(files: ReadonlyMap<string, Uint8Array<ArrayBuffer>>): Map<string, ByteSource> {
  return new Map([...files].map(([name, bytes]) => [name, new Blob([bytes])]))
}

/** A source that counts what is read of it. */
export function counting(source: ByteSource, log: { reads: number; bytes: number }): ByteSource {
  return {
    size: source.size,
    slice: (begin, end) => counting(source.slice(begin, end), log),
    arrayBuffer: () => {
      log.reads++
      log.bytes += source.size
      return source.arrayBuffer()
    },
  }
}

/** The ModelError that `action` fails with. */
export async function failure(action: () => unknown): Promise<ModelError> {
  try {
    await action()
  } catch (error) {
    if (error instanceof ModelError) return error
    throw error
  }
  throw new Error('Expected a ModelError, but nothing was thrown')
}

export function dataBytes({ dtype, shape }: TensorSpec): number {
  return byteSize(dtype, numel(shape))
}
