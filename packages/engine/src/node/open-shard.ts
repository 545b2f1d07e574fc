import type { OutputFile, ShardLayout } from '@polygraft/tensor-io'
import type { LocalFolder } from '@polygraft/tensor-io/node'
import { addTo } from '../_add-to.js'
import type { TensorCounts } from '../evaluate.js'
import type { TaskDone } from '../run-tasks.js'
import type { BlockingFiles } from './blocking-files.js'
import { createDigest, type Digest } from './digest.js'
import { formatStep, type KeptShard } from './shard-journal.js'

/** Digested at a time; the event loop turns in between. Unit: bytes. */
const CHUNK_BYTES = 2 ** 20
/** The journal has a line for so many bytes. */
const STEP_BYTES = 2 * 2 ** 20
/** The disk is handed so many at a time. */
const FLUSH_BYTES = 64 * 2 ** 20

/** A shard that is being written, and digested behind those who write it. */
export interface OpenShard {
  readonly layout: ShardLayout
  readonly file: OutputFile
  readonly digest: Digest
  /** Digested up to here; complete up to there. */
  at: number
  until: number
  /** Where the last line of the journal and the last flush were. */
  noted: number
  flushed: number
  flushing: Promise<void> | undefined
  /** Finished tasks of which no line tells yet, by where they end. */
  untold: { readonly end: number; readonly names: readonly string[]; readonly counts: TaskDone['counts'] }[]
}

type Journal = NonNullable<LocalFolder['notes']>['journal']

/** Makes a shard's file, or opens what is kept of it. */
export async function openShard(
  layout: ShardLayout,
  folder: LocalFolder,
  kept: KeptShard | undefined,
): Promise<OpenShard> {
  const { file: name, header, size } = layout
  const file = kept ? await folder.notes!.journal!.reopen(name) : await folder.createFile(name, size)
  if (!kept) await file.write(header, 0)
  const at = kept?.until ?? 0
  const until = kept?.until ?? header.length
  const digest = kept?.digest ?? createDigest()
  return { layout, file, digest, at, until, noted: at, flushed: at, flushing: undefined, untold: [] }
}

const chunk = new Uint8Array(CHUNK_BYTES)

/** Digests the next bytes that are complete, and tells the journal of them where it is time. */
export function digestChunk(shard: OpenShard, files: BlockingFiles, journal: Journal): void {
  const bytes = chunk.subarray(0, Math.min(chunk.length, shard.until - shard.at))
  files.readBack(shard.layout.file, shard.at, bytes)
  shard.digest.update(bytes)
  shard.at += bytes.length
  if (journal && shard.at - shard.noted >= STEP_BYTES) noteStep(shard, journal)
}

/** Whether there is enough to hand to the disk, and nothing is on its way there. */
export function isFlushDue({ at, flushed, flushing }: OpenShard): boolean {
  return at - flushed >= FLUSH_BYTES && !flushing
}

function noteStep(shard: OpenShard, journal: NonNullable<Journal>): void {
  const counts: Record<string, TensorCounts> = {}
  for (const { end, names, counts: counted } of shard.untold)
    if (end <= shard.at)
      for (const [i, count] of counted.entries())
        if (count.changed > 0 || count.nonFinite) addTo(counts, names[i]!, count)
  shard.untold = shard.untold.filter(({ end }) => end > shard.at)
  shard.noted = shard.at
  const sha256 = shard.digest.copy().hex()
  journal.append(shard.layout.file, formatStep({ until: shard.at, sha256, counts }))
}
