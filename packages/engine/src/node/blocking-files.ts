import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { ModelError } from '@polygraft/tensor'
import { fsError } from '@polygraft/tensor-io/node'
import type { ReadRequest } from '../evaluate.js'
import type { WriteRequest } from '../run-task.js'

/** Blocking reads of inputs and writes to existing files of `folder`, by handles of this thread's own. */
export interface BlockingFiles {
  read(request: ReadRequest): void
  write(request: WriteRequest): void
  /** Bytes of an output file, from `position` on. */
  readBack(file: string, position: number, out: Uint8Array): void
  /** Closes one output file. */
  closeFile(file: string): void
  close(): void
}

/** Handles that a thread holds; the one that was used longest ago is closed for another. */
const MAX_HANDLES = 64

export function blockingFiles(folder: string): BlockingFiles {
  /** In the order of use. */
  const handles = new Map<string, number>()
  let last = ''

  function handleOf(path: string, flags: 'r' | 'r+'): number {
    const known = handles.get(path)
    const handle = known ?? attempt(path, () => openSync(path, flags))
    if (path === last) return handle
    handles.delete(path)
    handles.set(path, handle)
    last = path
    if (handles.size > MAX_HANDLES) closePath(handles.keys().next().value!)
    return handle
  }

  function closePath(path: string): void {
    const handle = handles.get(path)
    if (handle === undefined) return
    closeSync(handle)
    handles.delete(path)
    if (last === path) last = ''
  }

  function fill(path: string, handle: number, position: number, out: Uint8Array): void {
    for (let done = 0; done < out.length; ) {
      const got = attempt(path, () => readSync(handle, out, done, out.length - done, position + done))
      if (got === 0) throw endsEarly(path, position + out.length, position + done)
      done += got
    }
  }

  return {
    read({ bytes, begin, out }) {
      fill(bytes.path!, handleOf(bytes.path!, 'r'), begin, out)
    },
    write({ file, position, bytes }) {
      const path = join(folder, file)
      const handle = handleOf(path, 'r+')
      for (let done = 0; done < bytes.length; )
        done += attempt(path, () => writeSync(handle, bytes, done, bytes.length - done, position + done))
    },
    readBack(file, position, out) {
      const path = join(folder, file)
      fill(path, handleOf(path, 'r+'), position, out)
    },
    closeFile(file) {
      closePath(join(folder, file))
    },
    close() {
      last = ''
      for (const handle of handles.values()) closeSync(handle)
      handles.clear()
    },
  }
}

function attempt<T>(path: string, step: () => T): T {
  try {
    return step()
  } catch (cause) {
    throw fsError(cause, 'The file cannot be used', path)
  }
}

function endsEarly(path: string, expected: number, received: number): ModelError {
  return new ModelError({
    code: 'truncated',
    message: 'The file ended while it was read',
    file: path,
    expected: `${expected} bytes`,
    received: `${received} bytes`,
    next: 'Another program may be changing the file. Fetch or copy it again.',
  })
}
