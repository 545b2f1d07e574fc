import {
  type ByteSource,
  DTYPE_BITS,
  isDType,
  type JsonValue,
  ModelError,
  type Problem,
  type StoredTensor,
  throwIfAny,
} from '@polygraft/tensor'
import { isJsonObject, parseIntegerJson } from './parse-json.js'
import { decodeUtf8 } from './read-text.js'

/** The reference implementation's limit. A longer header would be read whole into memory. Unit: bytes. */
const MAX_HEADER_BYTES = 100_000_000
/** Length field and header of nearly every real file fit, so one request is enough. Unit: bytes. */
export const HEAD_BYTES = 256 * 1024
const FIELDS = ['dtype', 'shape', 'data_offsets']

/** A safetensors file's header, checked. */
export interface SafetensorsHeader {
  /** In the order of their data. */
  readonly tensors: ReadonlyMap<string, StoredTensor>
  /** The file's `__metadata__`; empty when it has none. */
  readonly metadata: Readonly<Record<string, string>>
}

/**
 * Parses a safetensors header. Strict: every byte of the file belongs to exactly one tensor, every size is what dtype
 * and shape say, nothing is unknown, nothing overflows.
 *
 * @param header The JSON bytes, without the length field before them.
 * @param fileSize Bytes of the whole file.
 * @param file The file's name, for errors and for `StoredTensor.file`.
 * @throws ModelError "bad-header", "bad-utf8", "bad-json", "truncated", "trailing-bytes"; and with all tensors that are
 *   concerned "bad-tensor", "unknown-dtype", "bad-shape", "bad-offsets", "size-mismatch", "overlap", "hole".
 */
export function parseSafetensors(header: Uint8Array, fileSize: number, file: string): SafetensorsHeader {
  checkHeaderLength(header.length, fileSize, file)
  if (header[0] !== 0x7b)
    throw headerError(file, 'The header does not begin with {', 'Is this a safetensors file?')
  const root = parseIntegerJson(decodeUtf8(header, file), file)
  if (!isJsonObject(root)) throw headerError(file, 'The header is not a JSON object')
  const dataBegin = 8 + header.length
  const problems: Problem[] = []
  const found: [string, StoredTensor][] = []
  for (const [name, entry] of Object.entries(root)) {
    if (name === '__metadata__') continue
    const tensor = parseTensor(name, entry, dataBegin, file, problems)
    if (tensor) found.push([name, tensor])
  }
  throwIfAny(problems)
  found.sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end)
  checkCoverage(found, dataBegin, fileSize, file)
  return { tensors: new Map(found), metadata: parseMetadata(root.__metadata__, file) }
}

/**
 * Reads and parses the header of a safetensors file: one read, and a second one only for a header beyond 256 KiB.
 * @throws ModelError as `parseSafetensors`.
 */
export async function readSafetensors(source: ByteSource, file: string): Promise<SafetensorsHeader> {
  if (source.size < 8) throw truncated(file, 'at least 8 bytes', `${source.size} bytes`)
  const head = await readBytes(source, 0, Math.min(HEAD_BYTES, source.size))
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength)
  // Above 2^53 the sum is inexact, and far above the limit either way.
  const length = view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32
  checkHeaderLength(length, source.size, file)
  const header = new Uint8Array(length)
  header.set(head.subarray(8, 8 + length))
  if (8 + length > head.length) header.set(await readBytes(source, head.length, 8 + length), head.length - 8)
  return parseSafetensors(header, source.size, file)
}

async function readBytes(source: ByteSource, begin: number, end: number): Promise<Uint8Array> {
  return new Uint8Array(await source.slice(begin, end).arrayBuffer())
}

function checkHeaderLength(length: number, fileSize: number, file: string): void {
  if (length > MAX_HEADER_BYTES)
    throw new ModelError({
      code: 'bad-header',
      message: 'The header is too long',
      file,
      expected: `at most ${MAX_HEADER_BYTES} bytes`,
      received: `${length} bytes`,
      next: 'Is this a safetensors file? A web page or a Git LFS pointer saved under its name looks like this.',
    })
  if (8 + length > fileSize)
    throw truncated(file, `at least ${8 + length} bytes for the header`, `${fileSize} bytes`)
}

function parseTensor(
  name: string,
  entry: JsonValue,
  dataBegin: number,
  file: string,
  problems: Problem[],
): StoredTensor | undefined {
  const report = (code: string, message: string, expected: string, received: JsonValue | undefined) => {
    problems.push({ code, message, file, tensor: name, expected, received: show(received) })
    return undefined
  }
  if (!isJsonObject(entry) || !sameKeys(Object.keys(entry)))
    return report('bad-tensor', 'A tensor has wrong fields', FIELDS.join(', '), entry)
  const { dtype, shape, data_offsets: offsets } = entry
  if (typeof dtype !== 'string' || !isDType(dtype))
    return report('unknown-dtype', 'A dtype is unknown', Object.keys(DTYPE_BITS).join(', '), dtype)
  if (!isCounts(shape)) return report('bad-shape', 'A shape is malformed', 'integers from 0', shape)
  if (!isCounts(offsets) || offsets.length !== 2 || offsets[0]! > offsets[1]!)
    return report(
      'bad-offsets',
      'Data offsets are malformed',
      'two integers [begin, end], begin <= end',
      offsets,
    )
  const bits = checkedBits(DTYPE_BITS[dtype], shape)
  if (bits === undefined)
    return report('bad-shape', 'A shape has too many elements', 'a product below 2^53 bits', shape)
  const [begin, end] = offsets as [number, number]
  if (bits % 8 !== 0)
    return report('bad-shape', 'A sub-byte tensor does not fill whole bytes', 'bits divisible by 8', shape)
  if (end - begin !== bits / 8)
    return report(
      'size-mismatch',
      'Shape and dtype disagree with the data offsets',
      `${bits / 8} bytes for ${dtype} ${show(shape)}`,
      `${end - begin} bytes`,
    )
  return { dtype, shape, file, begin: dataBegin + begin, end: dataBegin + end }
}

function sameKeys(keys: readonly string[]): boolean {
  return keys.length === FIELDS.length && FIELDS.every((field) => keys.includes(field))
}

function isCounts(value: JsonValue | undefined): value is readonly number[] {
  return Array.isArray(value) && value.every(isCount)
}

function isCount(value: JsonValue): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0 && !Object.is(value, -0)
}

/** Bits of a tensor; undefined when the product leaves the exact integers. */
function checkedBits(bitsPerElement: number, shape: readonly number[]): number | undefined {
  let bits = bitsPerElement
  for (const size of shape) {
    bits *= size
    if (!Number.isSafeInteger(bits)) return undefined
  }
  return bits
}

/** Sorted tensors must follow each other without gap or overlap from the header's end to the file's. */
function checkCoverage(
  tensors: readonly (readonly [string, StoredTensor])[],
  dataBegin: number,
  fileSize: number,
  file: string,
): void {
  const problems: Problem[] = []
  let reached = dataBegin
  for (const [tensor, { begin, end }] of tensors) {
    if (begin !== reached)
      problems.push({
        code: begin < reached ? 'overlap' : 'hole',
        message: begin < reached ? 'Two tensors share bytes' : 'Bytes before a tensor belong to none',
        file,
        tensor,
        expected: `data from offset ${reached - dataBegin}`,
        received: `data from offset ${begin - dataBegin}`,
      })
    reached = Math.max(reached, end)
  }
  throwIfAny(problems)
  if (reached > fileSize) throw truncated(file, `${reached} bytes`, `${fileSize} bytes`)
  if (reached < fileSize)
    throw new ModelError({
      code: 'trailing-bytes',
      message: 'Bytes after the last tensor belong to none',
      file,
      expected: `${reached} bytes`,
      received: `${fileSize} bytes`,
    })
}

function parseMetadata(value: JsonValue | undefined, file: string): Record<string, string> {
  if (value === undefined) return {}
  if (!isJsonObject(value)) throw headerError(file, '__metadata__ is not an object')
  const wrong = Object.keys(value).filter((key) => typeof value[key] !== 'string')
  throwIfAny(
    wrong.map((key) => ({
      code: 'bad-header',
      message: `__metadata__ holds something else than text under ${JSON.stringify(key)}`,
      file,
      received: show(value[key]),
    })),
  )
  return value as Record<string, string>
}

function show(value: JsonValue | undefined): string {
  const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? 'nothing')
  return text.length > 100 ? `${text.slice(0, 100)}...` : text
}

function headerError(file: string, message: string, next?: string): ModelError {
  return new ModelError({ code: 'bad-header', message, file, ...(next === undefined ? {} : { next }) })
}

function truncated(file: string, expected: string, received: string): ModelError {
  return new ModelError({
    code: 'truncated',
    message: 'The file is shorter than its header says',
    file,
    expected,
    received,
    next: 'Download or copy the file again.',
  })
}
