import { mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { ModelError, throwIfAny } from '@polygraft/tensor'
import { fsError } from './_fs-error.js'
import { acquireLock } from './_lock.js'
import { siblingName, syncFolder } from './_replace.js'
import { writeDurably } from './_write-durably.js'
import { closeAll, folderOf, type LocalFolder, type Output } from './create-folder.js'
import { type CreateOptions, resolveTarget, targetProblems } from './output-problems.js'

export interface ResumeOptions extends CreateOptions {
  /** Names what is being written: only a folder that was begun with the same key is gone on with. */
  readonly key: string
  /** Whether it is gathered from `taskFolder`s, which others may be writing to: another key is then an error. */
  readonly gathered?: boolean
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
const OUTPUT_FOLDER = 'output'

/** The hidden folder beside `target` in which its output grows: the key, a lock, notes, and the output itself. */
export function workFolder(target: string, gathered = false): string {
  return join(dirname(target), `.${basename(target).slice(0, 200)}.polygraft${gathered ? '-plan' : ''}`)
}

/**
 * Begins an output folder like `createFolder`, or goes on with one that a killed or interrupted run with the same key
 * left behind. One with another key is removed: its inputs, recipe or program are not those of this run.
 * @throws ModelError as `createFolder`, and 'busy' while another run of this machine writes the same output.
 */
export async function resumeFolder(dir: string, options: ResumeOptions): Promise<ResumableFolder> {
  const target = await resolveTarget(dir)
  throwIfAny(await targetProblems(target, options))
  const gathered = options.gathered ?? false
  const root = workFolder(target, gathered)
  const path = join(root, OUTPUT_FOLDER)
  const { madeParent, unlock } = await attempt(dir, async () => {
    const madeParent = await mkdir(dirname(target), { recursive: true })
    await mkdir(root, { recursive: true })
    return { madeParent, unlock: await acquireLock(join(root, LOCK_FILE)) }
  })
  try {
    return await attempt(dir, async () => {
      if (gathered) await requireKey(root, options.key)
      else await prepare(root, path, options.key)
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
      return { ...folder, leave: () => leave(output, folder, unlock, gathered) }
    })
  } catch (error) {
    await unlock()
    throw error
  }
}

async function leave(
  output: Output,
  folder: LocalFolder,
  unlock: () => Promise<void>,
  gathered: boolean,
): Promise<number> {
  if (output.closed) return 0
  const noted = new Set(await readdir(join(output.root, NOTES_FOLDER)))
  // What is gathered is not this run's to remove.
  if (noted.size === 0 && !gathered) await folder.discard()
  if (output.closed) return 0
  await closeAll(output)
  if (!gathered)
    for (const name of await readdir(output.path))
      if (!noted.has(name)) await rm(join(output.path, name), { recursive: true, force: true })
  await unlock()
  return noted.size
}

/** Bytes on the disk that an unfinished output of `dir` holds: it will be gone on with, or be removed. */
export async function keptBytes(dir: string): Promise<number> {
  const path = join(workFolder(await resolveTarget(dir)), OUTPUT_FOLDER)
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

/**
 * Joins in an output that several processes write, perhaps on several machines: each writes files of its own in a folder of
 * its own, and a file that is noted moves into the common one whole. Twice the same file is no harm.
 * @throws ModelError 'plan-conflict' when the output was begun under another key.
 */
export async function taskFolder(
  dir: string,
  key: string,
): Promise<LocalFolder & { notes: ResumableFolder['notes'] }> {
  const target = await resolveTarget(dir)
  const root = workFolder(target, true)
  const shared = join(root, OUTPUT_FOLDER)
  return attempt(dir, async () => {
    await mkdir(shared, { recursive: true })
    await mkdir(join(root, NOTES_FOLDER), { recursive: true })
    if ((await readKey(root)) === undefined) await writeDurably(join(root, KEY_FILE), key)
    await requireKey(root, key)
    const path = join(root, siblingName(target, 'task'))
    await mkdir(path)
    const folder = folderOf({
      target,
      path,
      root: path,
      force: false,
      flags: 'wx',
      madeParent: undefined,
      handles: new Map(),
      folders: new Set([path]),
      steps: new Set(),
      closed: false,
      failure: undefined,
    })
    const { earlier, write } = await notesOf(root, shared)
    const publishFile = async (file: string, text: string) => {
      await rename(join(path, file), join(shared, file))
      await write(file, text)
    }
    return { ...folder, notes: { earlier, write: publishFile } }
  })
}

async function readKey(root: string): Promise<string | undefined> {
  return readFile(join(root, KEY_FILE), 'utf8').catch(() => undefined)
}

async function requireKey(root: string, key: string): Promise<void> {
  const received = await readKey(root)
  if (received === key) return
  throw new ModelError({
    code: 'plan-conflict',
    message:
      received === undefined ? 'No task of this plan has run' : 'Another plan is being run into this output',
    file: root,
    expected: `key ${key}`,
    received: received === undefined ? 'nothing' : `key ${received}`,
    next:
      received === undefined
        ? 'Run its tasks first.'
        : 'If that plan is not wanted any more, remove the folder.',
  })
}

/** Empties the folder unless it was begun with `key`. */
async function prepare(root: string, path: string, key: string): Promise<void> {
  if ((await readKey(root)) !== key) {
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
