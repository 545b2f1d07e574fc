import { type FileHandle, mkdir, open, rename, rmdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { type ByteSource, ModelError, throwIfAny } from '@polygraft/tensor'
import { isInside } from '../_names.js'
import type { OutputFile, OutputFolder } from '../output-folder.js'
import { fsError } from './_fs-error.js'
import { removeAside, removeTree, siblingName, swapIn, syncFolder } from './_replace.js'
import { fileSource } from './file-source.js'
import {
  type CreateOptions,
  contains,
  existingProblems,
  resolveTarget,
  targetProblems,
} from './output-problems.js'

/** The system writes less than 2 GiB at once. Unit: bytes. */
const MAX_CALL_BYTES = 2 ** 30
/** Unit: bytes. */
const COPY_BYTES = 4 * 1024 * 1024
/** An output folder of this machine. */
export type LocalFolder = OutputFolder & { readonly path: string }

export interface Output {
  readonly target: string
  readonly path: string
  readonly force: boolean
  /** Other processes' work is in it: only publishing removes anything. */
  readonly shared: boolean
  /** 'w' where an earlier run's files may be there. */
  readonly flags: 'wx' | 'w'
  /** Where a folder that is replaced goes before it is removed. */
  readonly aside: string
  /** Removes what is left of the output besides what was published: `path`, or the folder around it. */
  readonly remove: () => Promise<void>
  /** First of the parent folders that had to be made. */
  readonly madeParent: string | undefined
  readonly handles: Map<string, FileHandle>
  readonly folders: Set<string>
  /** Steps under way: nothing is removed below their feet, so that none leaves something behind. */
  readonly steps: Set<Promise<unknown>>
  closed: boolean
  /** The removal of everything, once it has begun. */
  discarded: Promise<void> | undefined
  /** Why the output was discarded, if the disk was full: every later step fails with it. */
  failure: ModelError | undefined
}

/**
 * Begins an output folder: a temporary folder beside `dir` that `publish` renames to `dir`.
 *
 * A full disk discards the output before the error ("disk-full") is thrown.
 * @throws ModelError "exists", "overlapping-paths", "unsafe-output", "io".
 */
export async function createFolder(dir: string, options: CreateOptions = {}): Promise<LocalFolder> {
  const target = await resolveTarget(dir)
  throwIfAny(await targetProblems(target, options))
  const parent = dirname(target)
  try {
    const madeParent = await mkdir(parent, { recursive: true })
    const path = join(parent, siblingName(target, 'polygraft'))
    await mkdir(path)
    const output = beginOutput({
      target,
      path,
      force: options.force ?? false,
      shared: false,
      flags: 'wx',
      madeParent,
      aside: join(parent, siblingName(target, 'polygraft-old')),
      remove: () => removeTree(path),
    })
    return folderOf(output)
  } catch (cause) {
    throw fsError(cause, 'The output folder cannot be made', dir)
  }
}

/** An output folder's state before anything is written. */
export function beginOutput(
  begun: Omit<Output, 'handles' | 'folders' | 'steps' | 'closed' | 'discarded' | 'failure'>,
): Output {
  return {
    ...begun,
    handles: new Map(),
    folders: new Set([begun.path]),
    steps: new Set(),
    closed: false,
    discarded: undefined,
    failure: undefined,
  }
}

/** The folder's operations over its state. */
export function folderOf(output: Output): LocalFolder {
  return {
    path: output.path,
    createFile: (name, size) => createFile(output, name, size),
    writeFile: (name, data) => writeFile(output, name, data),
    read: async (name) => fileSource(join(output.path, name)),
    publish: () => publish(output),
    discard: () => discard(output),
  }
}

/** @param isKept whether it is there already and goes on. */
export async function createFile(
  output: Output,
  name: string,
  size?: number,
  isKept = false,
): Promise<OutputFile> {
  if (!isInside(name))
    throw new ModelError({
      code: 'path-escape',
      message: 'A file name leaves the output folder, or not every system knows such names',
      received: JSON.stringify(name),
    })
  return guarded(output, name, async () => {
    await makeFolders(output, dirname(name))
    const flags = isKept ? 'r+' : output.flags === 'w' ? 'w+' : 'wx+'
    const handle = await open(join(output.path, name), flags)
    output.handles.set(name, handle)
    if (size !== undefined) await handle.truncate(size)
    return {
      write: (bytes, position) => guarded(output, name, () => writeAll(handle, bytes, position)),
      flush: () => guarded(output, name, () => handle.datasync()),
      close: async () => {
        if (output.handles.has(name)) await guarded(output, name, () => close(output, name))
      },
    }
  })
}

/** Folders of `name`, below the output's own: that one, removed by somebody, must not come back empty and be published so. */
async function makeFolders(output: Output, name: string): Promise<void> {
  if (name === '.') return
  await makeFolders(output, dirname(name))
  const folder = join(output.path, name)
  if (output.folders.has(folder)) return
  await mkdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
  })
  output.folders.add(folder)
}

async function writeAll(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const length = Math.min(bytes.length - done, MAX_CALL_BYTES)
    done += (await handle.write(bytes, done, length, position + done)).bytesWritten
  }
}

async function close(output: Output, name: string): Promise<void> {
  const handle = output.handles.get(name)
  if (!handle) return
  await handle.sync()
  output.handles.delete(name)
  await handle.close()
}

async function writeFile(
  output: Output,
  name: string,
  data: Uint8Array | string | ByteSource,
): Promise<void> {
  const file = await createFile(output, name)
  if (typeof data === 'string') await file.write(new TextEncoder().encode(data), 0)
  else if (data instanceof Uint8Array) await file.write(data, 0)
  else {
    for (let at = 0; at < data.size; at += COPY_BYTES) {
      const part = await data.slice(at, Math.min(at + COPY_BYTES, data.size)).arrayBuffer()
      await file.write(new Uint8Array(part), at)
    }
  }
  await file.close()
}

/** Runs a step of the output. A full disk discards it, so that the space is free again when the error arrives. */
export async function guarded<T>(output: Output, name: string, run: () => Promise<T>): Promise<T> {
  if (output.failure) throw output.failure
  if (output.closed)
    throw new ModelError({
      code: 'closed',
      message: 'The output is published or discarded already',
      file: name,
    })
  const step = run()
  output.steps.add(step)
  try {
    return await step
  } catch (cause) {
    const error = fsError(cause, 'The output cannot be written', name)
    output.steps.delete(step)
    if (error instanceof ModelError && error.code === 'disk-full') {
      output.failure ??= error
      await discard(output)
    }
    throw error
  } finally {
    output.steps.delete(step)
  }
}

async function publish(output: Output): Promise<void> {
  const { path, target } = output
  await guarded(output, basename(target), async () => {
    for (const name of [...output.handles.keys()]) await close(output, name)
    for (const folder of output.folders) await syncFolder(folder)
    if (!output.force) throwIfAny(await existingProblems(target, false))
    if (output.force) await swapIn(path, target, output.aside)
    else await rename(path, target)
    output.closed = true
    await syncFolder(dirname(target))
    await removeAside(output.aside)
    await output.remove()
  })
}

/** All who ask wait for the same removal. */
async function discard(output: Output): Promise<void> {
  if (!output.closed) output.discarded = removeAll(output)
  await output.discarded
}

async function removeAll(output: Output): Promise<void> {
  await closeAll(output)
  if (output.shared) return
  await output.remove()
  await removeEmptyParents(output)
}

/** Ends the output's use and leaves its files. */
export async function closeAll(output: Output): Promise<void> {
  output.closed = true
  await Promise.allSettled(output.steps)
  await Promise.allSettled([...output.handles.values()].map((handle) => handle.close()))
  output.handles.clear()
}

/** Parent folders that were made for the output go as well, unless somebody has used them since. */
export async function removeEmptyParents({
  target,
  madeParent,
}: Pick<Output, 'target' | 'madeParent'>): Promise<void> {
  if (madeParent === undefined) return
  for (let at = dirname(target); contains(madeParent, at); at = dirname(at)) {
    const removed = await rmdir(at).then(
      () => true,
      () => false,
    )
    if (!removed) return
  }
}
