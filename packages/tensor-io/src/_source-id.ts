import type { ByteSource, SourceId, StoredTensor } from '@polygraft/tensor'
import { mapConcurrently } from './_concurrent.js'
import { compareCodePoints } from './_names.js'
import type { Weights } from './_weights.js'

/** Tensors up to this size are hashed whole, larger ones by a block from their middle. Unit: bytes. */
const WHOLE_BYTES = 4096
const BLOCK_BYTES = 1024
/** Tensors that are read and hashed together: bounds the memory, and the buffers that SHA-256 wants in one piece. */
const BATCH = 512
const BATCHES_AT_ONCE = 2
const READS_AT_ONCE = 16
/** Blocks closer than this are read at once, gap included: cheaper than another read. Unit: bytes. */
const GAP_BYTES = 16 * 1024
const MAX_READ_BYTES = 1024 * 1024

type Named = readonly [string, StoredTensor]
interface Block {
  readonly file: string
  readonly begin: number
  readonly end: number
  /** Where the block goes in its batch's buffer. */
  readonly at: number
}

/**
 * `sampled-sha256:<hex>`: SHA-256 over the SHA-256 of batches of tensors in the order of their names, each with name,
 * dtype, shape and a block of 1 KiB from its middle (all of it up to 4 KiB). The layout over files has no part in it.
 * It is a sample: a change between the blocks of a large tensor goes unseen.
 */
export async function sampledId({ shards, tensors }: Weights): Promise<SourceId> {
  const batches = inBatches([...tensors].sort(([a], [b]) => compareCodePoints(a, b)))
  const digests = await mapConcurrently(batches, BATCHES_AT_ONCE, (batch) => hashBatch(batch, shards))
  return `sampled-sha256:${toHex(await sha256(concat(digests)))}`
}

/**
 * `header-sha256:<hex>` reads no data: SHA-256 over the location, names, dtypes, shapes and sizes. The location has to be
 * part of it, since a base model and its post-trained version agree in everything else.
 */
export async function headerId({ shards, tensors }: Weights, location: string): Promise<SourceId> {
  const sizes = [...shards].map(([name, { size }]) => [name, size])
  const specs = [...tensors].map(([name, { dtype, shape, file, begin }]) => [name, dtype, shape, file, begin])
  const text = JSON.stringify([location, sizes, specs])
  return `header-sha256:${toHex(await sha256(new TextEncoder().encode(text)))}`
}

function inBatches(sorted: readonly Named[]): Named[][] {
  const batches: Named[][] = []
  for (let i = 0; i < sorted.length; i += BATCH) batches.push(sorted.slice(i, i + BATCH))
  return batches
}

async function hashBatch(
  batch: readonly Named[],
  shards: ReadonlyMap<string, ByteSource>,
): Promise<Uint8Array> {
  const encoder = new TextEncoder()
  const heads: { at: number; bytes: Uint8Array }[] = []
  const blocks: Block[] = []
  let at = 0
  for (const [name, { dtype, shape, file, begin, end }] of batch) {
    const [from, to] = sampleOf(begin, end)
    // The block's length makes the boundary to the next tensor unambiguous.
    const bytes = encoder.encode(`${JSON.stringify([name, dtype, shape, to - from])}\n`)
    heads.push({ at, bytes })
    blocks.push({ file, begin: from, end: to, at: at + bytes.length })
    at += bytes.length + to - from
  }
  const buffer = new Uint8Array(at)
  for (const head of heads) buffer.set(head.bytes, head.at)
  await mapConcurrently(coalesce(blocks), READS_AT_ONCE, (run) => readRun(run, shards, buffer))
  return sha256(buffer)
}

function sampleOf(begin: number, end: number): [number, number] {
  if (end - begin <= WHOLE_BYTES) return [begin, end]
  const middle = begin + Math.floor((end - begin - BLOCK_BYTES) / 2)
  return [middle, middle + BLOCK_BYTES]
}

/** Blocks of one file that lie close together, as runs to be read at once. */
function coalesce(blocks: readonly Block[]): Block[][] {
  const sorted = blocks
    .filter(({ begin, end }) => end > begin)
    .sort((a, b) => compareCodePoints(a.file, b.file) || a.begin - b.begin)
  const runs: Block[][] = []
  for (const block of sorted) {
    const run = runs.at(-1)
    const [first, last] = [run?.[0], run?.at(-1)]
    const near = last?.file === block.file && block.begin - last.end <= GAP_BYTES
    if (near && block.end - first!.begin <= MAX_READ_BYTES) run!.push(block)
    else runs.push([block])
  }
  return runs
}

async function readRun(
  run: readonly Block[],
  shards: ReadonlyMap<string, ByteSource>,
  out: Uint8Array,
): Promise<void> {
  const { file, begin } = run[0]!
  const bytes = new Uint8Array(await shards.get(file)!.slice(begin, run.at(-1)!.end).arrayBuffer())
  for (const block of run) out.set(bytes.subarray(block.begin - begin, block.end - begin), block.at)
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await globalThis.crypto.subtle.digest('SHA-256', bytes))
}

function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    result.set(part, at)
    at += part.length
  }
  return result
}

function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}
