import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { throwIfAny } from '@polygraft/tensor'
import { fsError } from './_fs-error.js'
import { acquireLock } from './_lock.js'
import { syncFolder } from './_replace.js'
import { writeDurably } from './_write-durably.js'
import { closeAll, folderOf, type LocalFolder, type Output } from './create-folder.js'
import { type CreateOptions, resolveTarget, targetProblems } from './output-problems.js'

export interface ResumeOptions extends CreateOptions {
  /** Names what is being written: only a folder that was begun with the same key is gone on with. */
  readonly key: string
}

/** An output folder that outlives its process. */
export interface ResumableFolder extends LocalFolder {
  readonly notes: NonNullable<LocalFolder['notes']>
  /**
   * Ends this run and keeps the files that were noted for the next one with the same key; where there is none, discards.
   * @returns How many there are.
   */
  leave(): Promise<number>
}

const KEY_FILE = 'key'
const LOCK_FILE = 'lock'
const NOTES_FOLDER = 'notes'

/** The hidden folder beside `target` in which its output grows: the key, a lock, notes, and the output itself. */
export function workFolder(target: string): string {
  return join(dirname(target), `.${basename(target).slice(0, 200)}.polygraft`)
}

/**
 * Begins an output folder like `createFolder`, or goes on with one that a killed or interrupted run with the same key
 * left behind. One with another key is removed: its inputs, recipe or program are not those of this run.
 * @throws ModelError as `createFolder`, and 'busy' while another run of this machine writes the same output.
 */
export async function resumeFolder(dir: string, options: ResumeOptions): Promise<ResumableFolder> {
  const target = await resolveTarget(dir)
  throwIfAny(await targetProblems(target, options))
  const root = workFolder(target)
  const path = join(root, 'output')
  const { madeParent, unlock } = await attempt(dir, async () => {
    const madeParent = await mkdir(dirname(target), { recursive: true })
    await mkdir(root, { recursive: true })
    return { madeParent, unlock: await acquireLock(join(root, LOCK_FILE)) }
  })
  try {
    return await attempt(dir, async () => {
      await prepare(root, path, options.key)
      const output: Output = {
        target,
        path,
        root,
        force: options.force ?? false,
        flags: 'w',
        madeParent,
        handles: new Map(),
        folders: new Set([path]),
        steps: new Set(),
        closed: false,
        failure: undefined,
      }
      const folder = { ...folderOf(output), notes: await notesOf(root, path) }
      return { ...folder, leave: () => leave(output, folder, unlock) }
    })
  } catch (error) {
    await unlock()
    throw error
  }
}

async function leave(output: Output, folder: LocalFolder, unlock: () => Promise<void>): Promise<number> {
  const noted = new Set(await readdir(join(output.root, NOTES_FOLDER)))
  if (noted.size === 0) await folder.discard()
  if (output.closed) return 0
  await closeAll(output)
  for (const name of await readdir(output.path))
    if (!noted.has(name)) await rm(join(output.path, name), { recursive: true, force: true })
  await unlock()
  return noted.size
}

/** Bytes on the disk that an unfinished output of `dir` holds: it will be gone on with, or be removed. */
export async function keptBytes(dir: string): Promise<number> {
  const path = join(workFolder(await resolveTarget(dir)), 'output')
  const names = await readdir(path).catch(() => [])
  const stats = await Promise.all(names.map((name) => stat(join(path, name)).catch(() => undefined)))
  return stats.reduce((sum, file) => sum + (file?.blocks ?? 0) * 512, 0)
}

async function attempt<T>(dir: string, step: () => Promise<T>): Promise<T> {
  try {
    return await step()
  } catch (cause) {
    throw fsError(cause, 'The output folder cannot be made', dir)
  }
}

/** Empties the folder unless it was begun with `key`. */
async function prepare(root: string, path: string, key: string): Promise<void> {
  const earlier = await readFile(join(root, KEY_FILE), 'utf8').catch(() => undefined)
  if (earlier !== key) {
    for (const name of await readdir(root))
      if (name !== LOCK_FILE) await rm(join(root, name), { recursive: true, force: true })
    await mkdir(join(root, NOTES_FOLDER), { recursive: true })
    await mkdir(path, { recursive: true })
    await writeDurably(join(root, KEY_FILE), key)
  }
}

async function notesOf(root: string, path: string): Promise<ResumableFolder['notes']> {
  const folder = join(root, NOTES_FOLDER)
  const earlier = new Map<string, string>()
  for (const file of await readdir(folder)) {
    const isThere = await stat(join(path, file)).catch(() => undefined)
    if (isThere) earlier.set(file, await readFile(join(folder, file), 'utf8'))
  }
  return {
    earlier,
    async write(file, text) {
      // The file's own name must be on the disk before a note says that it is.
      await syncFolder(path)
      await writeDurably(join(folder, file), text)
    },
  }
}
