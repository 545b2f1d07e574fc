import {
  byteSize,
  DTYPE_BITS,
  type DType,
  ModelError,
  numel,
  type Problem,
  throwIfAny,
} from '@polygraft/tensor'
import { compareCodePoints } from './_names.js'

/** What a header says of a tensor. */
export interface TensorSpec {
  readonly dtype: DType
  readonly shape: readonly number[]
}

/** Where a tensor's bytes go: [begin, end), counted from the file's first byte. */
export interface ByteRange {
  readonly begin: number
  readonly end: number
}

/** A safetensors file before its data. */
export interface SafetensorsLayout {
  /** Length field, JSON and padding: the file's first bytes. */
  readonly header: Uint8Array<ArrayBuffer>
  /** In the order of the data. */
  readonly tensors: ReadonlyMap<string, ByteRange>
  /** Bytes of the whole file. */
  readonly size: number
}

const ORDER = new Map(Object.keys(DTYPE_BITS).map((dtype, i) => [dtype, i]))

/**
 * Lays out a safetensors file as the reference writer does, byte for byte: wider dtypes first (its enum's order,
 * descending), then by name in code point order; no white space in the JSON; spaces up to a multiple of 8.
 *
 * @param metadata Written in its own order (the reference writer's is random).
 * @throws ModelError "bad-name", "bad-shape", with all tensors that are concerned.
 */
export function formatSafetensors(
  tensors: Iterable<readonly [string, TensorSpec]>,
  metadata: Readonly<Record<string, string>> = {},
): SafetensorsLayout {
  const sorted = [...tensors].sort(
    ([a, { dtype: x }], [b, { dtype: y }]) => ORDER.get(y)! - ORDER.get(x)! || compareCodePoints(a, b),
  )
  throwIfAny(sorted.flatMap(([name, spec], i) => check(name, spec, sorted[i - 1]?.[0])))
  const parts: string[] = []
  const pairs = Object.entries(metadata)
  if (pairs.length > 0) parts.push(`"__metadata__":{${pairs.map(([k, v]) => `${quote(k)}:${quote(v)}`)}}`)
  const offsets: [string, ByteRange][] = []
  let at = 0
  for (const [name, { dtype, shape }] of sorted) {
    const end = at + byteSize(dtype, numel(shape))
    parts.push(`${quote(name)}:{"dtype":"${dtype}","shape":[${shape}],"data_offsets":[${at},${end}]}`)
    offsets.push([name, { begin: at, end }])
    at = end
  }
  const header = withLength(new TextEncoder().encode(`{${parts.join(',')}}`))
  const shifted = offsets.map(
    ([name, { begin, end }]) => [name, { begin: header.length + begin, end: header.length + end }] as const,
  )
  return { header, tensors: new Map(shifted), size: header.length + at }
}

function withLength(json: Uint8Array): Uint8Array<ArrayBuffer> {
  const padded = Math.ceil(json.length / 8) * 8
  const header = new Uint8Array(8 + padded).fill(0x20)
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true)
  header.set(json, 8)
  return header
}

/** A JSON string as serde_json writes it, which is what JSON.stringify does to well-formed text. */
function quote(text: string): string {
  if (/\p{Surrogate}/u.test(text))
    throw new ModelError({
      code: 'bad-name',
      message: `Half of a surrogate pair stands alone in ${JSON.stringify(text)}`,
    })
  return JSON.stringify(text)
}

function check(name: string, { dtype, shape }: TensorSpec, previous: string | undefined): Problem[] {
  if (name === '__metadata__')
    return [{ code: 'bad-name', message: 'No tensor can have the name of the metadata', tensor: name }]
  if (name === previous) return [{ code: 'bad-name', message: 'Two tensors have one name', tensor: name }]
  if (
    shape.every((n) => Number.isSafeInteger(n) && n >= 0) &&
    Number.isSafeInteger(byteSize(dtype, numel(shape)))
  )
    return []
  return [
    {
      code: 'bad-shape',
      message: 'A tensor of this shape cannot be stored',
      tensor: name,
      expected: 'integers from 0, whole bytes, below 2^53',
      received: `${dtype} [${shape}]`,
    },
  ]
}
