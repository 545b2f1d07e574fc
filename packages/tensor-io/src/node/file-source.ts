import { type Stats, statSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { type ByteSource, ModelError } from '@polygraft/tensor'
import { fsError } from './_fs-error.js'

/** The system reads less than 2 GiB at once. Unit: bytes. */
const MAX_CALL_BYTES = 2 ** 30

/** A local file as a ByteSource. `path` lets a thread open it for itself. */
export type FileSource = ByteSource & { readonly path: string; readonly state: string }

interface OpenFile {
  readonly path: string
  readonly state: string
  handle: Promise<FileHandle> | undefined
  readers: number
}

/**
 * The file at `path`. It is opened when it is read and closed when nobody reads, so thousands of sources cost nothing.
 * @throws ModelError "missing-file", "io"; a read throws "changed" when the file is no longer what it was at this call,
 *   "truncated" when it ends early.
 */
export function fileSource(path: string): FileSource {
  let stats: Stats
  try {
    stats = statSync(path)
  } catch (cause) {
    throw fsError(cause, 'The file cannot be read', path)
  }
  if (!stats.isFile()) throw new ModelError({ code: 'io', message: 'This is not a file', file: path })
  const state = describe(stats)
  const file: OpenFile = { path, state, handle: undefined, readers: 0 }
  return { path, state, ...slice(file, 0, stats.size) }
}

/** The state that `fileSource` would give the file now; `gone` when there is none. */
export function fileState(path: string): string {
  const stats = statSync(path, { throwIfNoEntry: false })
  return stats ? describe(stats) : 'gone'
}

function describe({ size, mtime }: Pick<Stats, 'size' | 'mtime'>): string {
  return `${size} bytes of ${mtime.toISOString()}`
}

function slice(file: OpenFile, begin: number, end: number): ByteSource {
  const size = end - begin
  const within = (offset: number) => begin + Math.min(Math.max(offset, 0), size)
  return {
    size,
    slice: (from, to) => slice(file, within(from), Math.max(within(from), within(to))),
    arrayBuffer: () => read(file, begin, end),
  }
}

async function read(file: OpenFile, begin: number, end: number): Promise<ArrayBuffer> {
  const bytes = new Uint8Array(end - begin)
  file.readers++
  try {
    file.handle ??= openUnchanged(file)
    const handle = await file.handle
    await fill(handle, bytes, begin, file.path)
  } catch (cause) {
    throw fsError(cause, 'The file cannot be read', file.path)
  } finally {
    if (--file.readers === 0) await release(file)
  }
  return bytes.buffer
}

async function openUnchanged({ path, state }: OpenFile): Promise<FileHandle> {
  const handle = await open(path, 'r')
  const now = describe(await handle.stat())
  if (now === state) return handle
  await handle.close()
  throw new ModelError({
    code: 'changed',
    message: 'The file changed while it was in use',
    file: path,
    expected: state,
    received: now,
  })
}

async function fill(handle: FileHandle, bytes: Uint8Array, begin: number, path: string): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const length = Math.min(bytes.length - done, MAX_CALL_BYTES)
    const { bytesRead } = await handle.read(bytes, done, length, begin + done)
    if (bytesRead === 0)
      throw new ModelError({
        code: 'truncated',
        message: 'The file ends early',
        file: path,
        expected: `${begin + bytes.length} bytes`,
        received: `${begin + done} bytes`,
      })
    done += bytesRead
  }
}

async function release(file: OpenFile): Promise<void> {
  const handle = file.handle
  file.handle = undefined
  // A failed open has been reported to its readers already.
  await (await handle?.catch(() => undefined))?.close()
}
