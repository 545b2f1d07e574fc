import { randomBytes } from 'node:crypto'
import { type FileHandle, lstat, mkdir, open, readdir, realpath, rename, rm, rmdir } from 'node:fs/promises'
import { homedir } from 'node:os'
import { basename, dirname, join, relative, resolve, sep } from 'node:path'
import { type ByteSource, ModelError, type Problem, throwIfAny } from '@polygraft/tensor'
import { isInside } from '../_names.js'
import type { OutputFile, OutputFolder } from '../output-folder.js'
import { fsError, systemCode } from './_fs-error.js'

/** Unit: bytes. */
const COPY_BYTES = 4 * 1024 * 1024
const NO_FOLDER_SYNC = new Set(['EISDIR', 'EPERM', 'EINVAL', 'ENOTSUP'])

export interface CreateOptions {
  /** Replace an existing folder. The old one is removed only once the new one has its name. */
  readonly force?: boolean
  /** Paths that are read from; the output may neither lie in one of them nor contain one. Paths that do not exist are ignored. */
  readonly inputs?: readonly string[]
}

interface Output {
  readonly target: string
  readonly path: string
  readonly force: boolean
  /** First of the parent folders that had to be made. */
  readonly madeParent: string | undefined
  readonly handles: Map<string, FileHandle>
  readonly folders: Set<string>
  /** Steps under way: nothing is removed below their feet, so that none leaves something behind. */
  readonly steps: Set<Promise<unknown>>
  closed: boolean
  /** Why the output was discarded, if the disk was full: every later step fails with it. */
  failure: ModelError | undefined
}

/**
 * Begins an output folder: a temporary folder beside `dir` that `publish` renames to `dir`.
 *
 * A full disk discards the output before the error ("disk-full") is thrown.
 * @throws ModelError "exists", "overlapping-paths", "unsafe-output", "io".
 */
export async function createFolder(dir: string, options: CreateOptions = {}): Promise<OutputFolder> {
  const target = await resolveTarget(dir)
  throwIfAny(await targetProblems(target, options))
  const parent = dirname(target)
  try {
    const madeParent = await mkdir(parent, { recursive: true })
    const path = join(parent, siblingName(target, 'polygraft'))
    await mkdir(path)
    return folderOf({
      target,
      path,
      force: options.force ?? false,
      madeParent,
      handles: new Map(),
      folders: new Set([path]),
      steps: new Set(),
      closed: false,
      failure: undefined,
    })
  } catch (cause) {
    throw fsError(cause, 'The output folder cannot be made', dir)
  }
}

/** What `createFolder` would refuse, all of it; nothing is made. */
export async function outputProblems(dir: string, options: CreateOptions = {}): Promise<Problem[]> {
  return targetProblems(await resolveTarget(dir), options)
}

async function targetProblems(target: string, options: CreateOptions): Promise<Problem[]> {
  const overlaps = await overlapProblems(target, options.inputs ?? [])
  return [...overlaps, ...(await existingProblems(target, options.force ?? false))]
}

function folderOf(output: Output): OutputFolder {
  return {
    path: output.path,
    createFile: (name, size) => createFile(output, name, size),
    writeFile: (name, data) => writeFile(output, name, data),
    publish: () => publish(output),
    discard: () => discard(output),
  }
}

function siblingName(target: string, mark: string): string {
  // File systems end names at 255 bytes.
  return `.${basename(target).slice(0, 50)}.${mark}-${process.pid}-${randomBytes(4).toString('hex')}`
}

/** `dir` with every link on the way to it followed, as far as it exists. */
async function resolveTarget(dir: string): Promise<string> {
  const path = resolve(dir)
  try {
    return await realpath(path)
  } catch (cause) {
    if (systemCode(cause) !== 'ENOENT') throw fsError(cause, 'The output folder cannot be made', dir)
    return dirname(path) === path ? path : join(await resolveTarget(dirname(path)), basename(path))
  }
}

async function overlapProblems(target: string, inputs: readonly string[]): Promise<Problem[]> {
  const problems: Problem[] = []
  for (const input of inputs) {
    const path = await realpath(input).catch(() => undefined)
    if (path === undefined || !(contains(path, target) || contains(target, path))) continue
    problems.push({
      code: 'overlapping-paths',
      message: 'The output lies inside of an input, or an input inside of the output',
      expected: 'an output folder of its own',
      received: `${target} and ${path}`,
    })
  }
  return problems
}

function contains(folder: string, path: string): boolean {
  const between = relative(folder, path)
  return (
    between === '' || (between !== '..' && !between.startsWith(`..${sep}`) && resolve(between) !== between)
  )
}

async function existingProblems(target: string, force: boolean): Promise<Problem[]> {
  const found = await lstat(target).catch(() => undefined)
  if (!found) return []
  const isFolder = found.isDirectory()
  if (!force || !isFolder)
    return [
      {
        code: 'exists',
        message: isFolder ? 'The output folder exists' : 'The output exists and is not a folder',
        received: target,
        next: isFolder
          ? 'Choose another folder, or replace this one with --force.'
          : 'Choose another folder.',
      },
    ]
  const next = 'Choose another folder.'
  if (contains(target, process.cwd()) || contains(target, homedir()))
    return [
      {
        code: 'unsafe-output',
        message: 'The output would replace the current folder or the home folder',
        received: target,
        next,
      },
    ]
  const names = await readdir(target)
  if (names.length > 0 && !names.some(isCheckpointFile))
    return [
      {
        code: 'unsafe-output',
        message: 'The output would replace a folder that holds no checkpoint',
        received: `${target} with ${names.slice(0, 3).join(', ')}`,
        next,
      },
    ]
  return []
}

function isCheckpointFile(name: string): boolean {
  return name === 'polygraft.json' || name === 'config.json' || name.endsWith('.safetensors')
}

async function createFile(output: Output, name: string, size?: number): Promise<OutputFile> {
  if (!isInside(name))
    throw new ModelError({
      code: 'path-escape',
      message: 'A file leaves the output folder',
      received: JSON.stringify(name),
    })
  return guarded(output, name, async () => {
    const folder = dirname(join(output.path, name))
    await mkdir(folder, { recursive: true })
    for (let at = folder; at !== output.path; at = dirname(at)) output.folders.add(at)
    const handle = await open(join(output.path, name), 'wx')
    output.handles.set(name, handle)
    if (size !== undefined) await handle.truncate(size)
    return {
      write: (bytes, position) => guarded(output, name, () => writeAll(handle, bytes, position)),
      close: async () => {
        if (output.handles.has(name)) await guarded(output, name, () => close(output, name))
      },
    }
  })
}

async function writeAll(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; )
    done += (await handle.write(bytes, done, bytes.length - done, position + done)).bytesWritten
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
async function guarded<T>(output: Output, name: string, run: () => Promise<T>): Promise<T> {
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
  await guarded(output, basename(output.target), async () => {
    for (const name of [...output.handles.keys()]) await close(output, name)
    for (const folder of output.folders) await syncFolder(folder)
    await (output.force ? replace(output) : moveIn(output))
  })
}

async function moveIn(output: Output): Promise<void> {
  throwIfAny(await existingProblems(output.target, false))
  await rename(output.path, output.target)
  output.closed = true
  await syncFolder(dirname(output.target))
}

/** Never without an old or a new folder that is complete: the old one steps aside, and back if the new one fails. */
async function replace(output: Output): Promise<void> {
  const { path, target } = output
  const aside = join(dirname(target), siblingName(target, 'polygraft-old'))
  const existed = await renameIfThere(target, aside)
  try {
    await rename(path, target)
  } catch (error) {
    if (existed) await rename(aside, target)
    throw error
  }
  output.closed = true
  await syncFolder(dirname(target))
  if (existed) await rm(aside, { recursive: true, force: true })
}

async function renameIfThere(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to)
    return true
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return false
    throw error
  }
}

/** Makes renames and new names durable. Some file systems cannot, and need not. */
async function syncFolder(path: string): Promise<void> {
  try {
    const handle = await open(path, 'r')
    await handle.sync().finally(() => handle.close())
  } catch (error) {
    if (!NO_FOLDER_SYNC.has(systemCode(error) ?? '')) throw error
  }
}

async function discard(output: Output): Promise<void> {
  if (output.closed) return
  output.closed = true
  await Promise.allSettled(output.steps)
  await Promise.allSettled([...output.handles.values()].map((handle) => handle.close()))
  output.handles.clear()
  await rm(output.path, { recursive: true, force: true, maxRetries: 3 })
  await removeEmptyParents(output)
}

/** Parent folders that were made for the output go as well, unless somebody has used them since. */
async function removeEmptyParents({ target, madeParent }: Output): Promise<void> {
  if (madeParent === undefined) return
  for (let at = dirname(target); contains(madeParent, at); at = dirname(at)) {
    const removed = await rmdir(at).then(
      () => true,
      () => false,
    )
    if (!removed) return
  }
}
