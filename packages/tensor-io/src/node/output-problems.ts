import { access, constants, lstat, readdir, realpath } from 'node:fs/promises'
import { homedir } from 'node:os'
import { basename, dirname, join, relative, resolve, sep } from 'node:path'
import type { Problem } from '@polygraft/tensor'
import { fsError, systemCode } from './_fs-error.js'

/** How an output folder is begun. */
export interface CreateOptions {
  /** Replace an existing folder. The old one is removed only once the new one has its name. */
  readonly force?: boolean
  /** Paths that are read from; the output may neither lie in one of them nor contain one. Paths that do not exist are ignored. */
  readonly inputs?: readonly string[]
}

/** What `createFolder` would refuse, all of it; nothing is made. */
export async function outputProblems(dir: string, options: CreateOptions = {}): Promise<Problem[]> {
  return targetProblems(await resolveTarget(dir), options)
}

/** `outputProblems` of a target that is resolved already. */
export async function targetProblems(target: string, options: CreateOptions): Promise<Problem[]> {
  const overlaps = await overlapProblems(target, options.inputs ?? [])
  const existing = await existingProblems(target, options.force ?? false)
  return [...overlaps, ...existing, ...(await parentProblems(dirname(target)))]
}

/** `dir` with every link on the way to it followed, as far as it exists. */
export async function resolveTarget(dir: string): Promise<string> {
  const path = resolve(dir)
  try {
    return await realpath(path)
  } catch (cause) {
    if (systemCode(cause) !== 'ENOENT' && systemCode(cause) !== 'ENOTDIR')
      throw fsError(cause, 'The output folder cannot be made', dir)
    return dirname(path) === path ? path : join(await resolveTarget(dirname(path)), basename(path))
  }
}

/** Whether a folder can be made in `path`, or in the nearest folder above it that exists. */
async function parentProblems(path: string): Promise<Problem[]> {
  const found = await lstat(path).catch(() => undefined)
  if (!found) return dirname(path) === path ? [] : parentProblems(dirname(path))
  if (!found.isDirectory())
    return [{ code: 'unwritable', message: 'The output would lie inside of a file', file: path, next: NEXT }]
  try {
    await access(path, constants.W_OK | constants.X_OK)
    return []
  } catch (error) {
    const received = (error as Error).message
    return [
      { code: 'unwritable', message: 'The folder cannot be written to', file: path, received, next: NEXT },
    ]
  }
}

const NEXT = 'Choose another folder.'

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

/** Whether `path` is `folder` or lies inside of it. Both are absolute and resolved. */
export function contains(folder: string, path: string): boolean {
  const between = relative(folder, path)
  return (
    between === '' || (between !== '..' && !between.startsWith(`..${sep}`) && resolve(between) !== between)
  )
}

/** Why `target` cannot be written because of what is there already. */
export async function existingProblems(target: string, force: boolean): Promise<Problem[]> {
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
