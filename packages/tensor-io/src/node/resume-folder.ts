import { link, mkdir, readdir, readFile, rename, rm, rmdir, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { ModelError, type Problem, throwIfAny } from '@polygraft/tensor'
import { fsError, systemCode } from './_fs-error.js'
import { appendLine, forgetLines, readJournal } from './_journal.js'
import { acquireLock } from './_lock.js'
import { forgetLost, readNotes, writeNote } from './_notes.js'
import { removeTree, restoreAside, siblingName } from './_replace.js'
import { writeDurably } from './_write-durably.js'
import {
  beginOutput,
  closeAll,
  createFile,
  folderOf,
  guarded,
  type LocalFolder,
  type Output,
  removeEmptyParents,
} from './create-folder.js'
import { type CreateOptions, existingProblems, resolveTarget, targetProblems } from './output-problems.js'

export interface ResumeOptions extends CreateOptions {
  /** Names what is being written: only a folder that was begun with the same key is gone on with. */
  readonly key: string
  /** Whether it is gathered from `taskFolder`s, which others may be writing to: another key is then an error. */
  readonly gathered?: boolean
}

/** Files that outlive a run: those that are finished, and those that the next one goes on with. */
export interface Kept {
  readonly finished: number
  readonly begun: number
}

/** An output folder that outlives its process. */
export interface ResumableFolder extends LocalFolder {
  readonly notes: NonNullable<LocalFolder['notes']>
  /**
   * Ends this run and keeps the files that were noted or begun for the next one with the same key; where there is none, discards.
   * @returns How many are noted, and how many begun.
   */
  leave(): Promise<Kept>
}

const KEY_FILE = 'key'
const LOCK_FILE = 'lock'
const NOTES_FOLDER = 'notes'
const JOURNAL_FOLDER = 'journal'
const OUTPUT_FOLDER = 'output'
const ASIDE = 'replaced'
const MAX_ENTRIES = 5

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
  const { key, force = false, gathered = false } = options
  const target = await resolveTarget(dir)
  throwIfAny(await (gathered ? planProblems : targetProblems)(target, options))
  const root = workFolder(target, gathered)
  const { madeParent, unlock } = await attempt(dir, () => enter(target, root))
  try {
    return await attempt(dir, async () => {
      await restoreAside(join(root, ASIDE), target)
      // The run that held the lock until now may have published.
      throwIfAny(await existingProblems(target, force))
      if (gathered) await requireKey(root, key)
      else await prepare(root, key)
      const output = beginOutput({
        target,
        path: join(root, OUTPUT_FOLDER),
        force,
        shared: gathered,
        flags: 'w',
        madeParent,
        aside: join(root, ASIDE),
        remove: () => removeWork(root, target, unlock),
      })
      const plain = folderOf(output)
      const notes = await notesOf(output, root, output.path)
      if (gathered) return { ...plain, notes, leave: () => leave(output, plain, root, unlock) }
      const journal = await journalOf(output, root, notes)
      const folder = { ...plain, ...journal }
      return { ...folder, leave: () => leave(output, folder, root, unlock) }
    })
  } catch (error) {
    await unlock()
    // Tasks that begin may be making the folders in it.
    const made = gathered ? ['.'] : [NOTES_FOLDER, JOURNAL_FOLDER, OUTPUT_FOLDER, '.']
    for (const name of made) await rmdir(join(root, name)).catch(ignore)
    await removeEmptyParents({ target, madeParent })
    throw error
  }
}

/** Makes the hidden folder and locks it. */
async function enter(
  target: string,
  root: string,
): Promise<{ madeParent: string | undefined; unlock: () => Promise<void> }> {
  const madeParent = await mkdir(dirname(target), { recursive: true })
  for (let attempts = 0; ; attempts++) {
    try {
      await mkdir(root, { recursive: true })
      return { madeParent, unlock: await acquireLock(join(root, LOCK_FILE)) }
    } catch (error) {
      await rmdir(root).catch(ignore)
      // A run that ends removes the folder, perhaps between the two steps.
      if (systemCode(error) === 'ENOENT' && attempts < MAX_ENTRIES) continue
      await removeEmptyParents({ target, madeParent })
      throw error
    }
  }
}

/**
 * Removes the hidden folder, the lock in it last: until then nobody else uses the folder, and from then on nothing is
 * removed that another run may have made.
 */
async function removeWork(root: string, target: string, unlock: () => Promise<void>): Promise<void> {
  // Should a replaced folder still be here, it is the only copy.
  await restoreAside(join(root, ASIDE), target)
  await emptyBut(root, (name) => name === LOCK_FILE)
  await unlock()
  await rmdir(root).catch(ignore)
}

async function emptyBut(root: string, isKept: (name: string) => boolean): Promise<void> {
  for (const name of await readdir(root).catch(() => []))
    if (!isKept(name)) await removeTree(join(root, name))
}

function ignore(): void {}

async function leave(
  output: Output,
  folder: LocalFolder,
  root: string,
  unlock: () => Promise<void>,
): Promise<Kept> {
  const none = { finished: 0, begun: 0 }
  if (output.closed && !output.shared) return none
  const noted = new Set(await readdir(join(root, NOTES_FOLDER)).catch(() => []))
  const lines = await readJournal(join(root, JOURNAL_FOLDER), output.path).catch(() => new Map())
  const begun = new Set([...lines.keys()].filter((file) => !noted.has(file)))
  if (noted.size + begun.size === 0) await folder.discard()
  if (output.closed && !output.shared) return none
  await closeAll(output)
  if (!output.shared) await emptyBut(output.path, (name) => noted.has(name) || begun.has(name))
  await unlock()
  return { finished: noted.size, begun: begun.size }
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
 * @throws ModelError 'plan-conflict' when the output was begun under another key, and those of `createFolder` about `dir`.
 */
export async function taskFolder(
  dir: string,
  { key, ...options }: ResumeOptions,
): Promise<LocalFolder & { notes: ResumableFolder['notes'] }> {
  const target = await resolveTarget(dir)
  throwIfAny(await planProblems(target, options))
  const root = workFolder(target, true)
  const shared = join(root, OUTPUT_FOLDER)
  return attempt(dir, async () => {
    await mkdir(shared, { recursive: true })
    await mkdir(join(root, NOTES_FOLDER), { recursive: true })
    if ((await readKey(root)) === undefined) await writeDurably(join(root, KEY_FILE), key, root, linkOnce)
    await requireKey(root, key)
    const path = join(root, siblingName(target, 'task'))
    await mkdir(path)
    const output = beginOutput({
      target,
      path,
      force: false,
      shared: false,
      flags: 'wx',
      madeParent: undefined,
      aside: `${path}-replaced`,
      remove: () => removeTree(path),
    })
    const folder = folderOf(output)
    const discard = async () => {
      await folder.discard()
      // Empty only when the output was published meanwhile, and this task made the folder anew.
      await rmdir(root).catch(ignore)
    }
    const { earlier, write } = await notesOf(output, root, shared)
    const move = (file: string) =>
      rename(join(path, file), join(shared, file)).catch((cause: unknown) => {
        throw systemCode(cause) === 'ENOENT' ? published(target, file) : cause
      })
    const handIn = async (file: string, text: string) => {
      await guarded(output, file, () => move(file))
      await write(file, text)
    }
    return { ...folder, discard, notes: { earlier, write: handIn } }
  })
}

/** `targetProblems`, for those who can choose no other output. */
async function planProblems(target: string, options: CreateOptions): Promise<Problem[]> {
  const next = 'If this plan has been finished, nothing is left to be done; otherwise make the plan again.'
  const problems = await targetProblems(target, options)
  return problems.map((problem) => (problem.code === 'exists' ? { ...problem, next } : problem))
}

function published(target: string, file: string): ModelError {
  return new ModelError({
    code: 'published',
    message: 'The output was published, or removed, while this task still wrote to it',
    file,
    received: target,
    next: 'If it is there, it is whole: nothing is left to be done.',
  })
}

/** Of several tasks that begin an output at once, one names its key. */
async function linkOnce(grown: string, path: string): Promise<void> {
  await link(grown, path).catch((cause: unknown) => {
    if (systemCode(cause) !== 'EEXIST') throw cause
  })
  await rm(grown, { force: true })
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

/** Empties the folder unless it was begun with `key`, and makes it ready to go on with. */
async function prepare(root: string, key: string): Promise<void> {
  const isSame = (await readKey(root)) === key
  if (!isSame) await emptyBut(root, (name) => name.startsWith(LOCK_FILE))
  await mkdir(join(root, NOTES_FOLDER), { recursive: true })
  await mkdir(join(root, JOURNAL_FOLDER), { recursive: true })
  await mkdir(join(root, OUTPUT_FOLDER), { recursive: true })
  await forgetLost(join(root, NOTES_FOLDER), join(root, OUTPUT_FOLDER))
  if (!isSame) await writeDurably(join(root, KEY_FILE), key)
}

/** @param path Where the files are that are noted. */
async function notesOf(output: Output, root: string, path: string): Promise<ResumableFolder['notes']> {
  const folder = join(root, NOTES_FOLDER)
  return {
    earlier: await readNotes(folder, path),
    write: (file, text) => guarded(output, file, () => writeNote(folder, path, file, text)),
  }
}

/** Creating and noting files of a folder with a journal. */
async function journalOf(
  output: Output,
  root: string,
  notes: ResumableFolder['notes'],
): Promise<Pick<ResumableFolder, 'createFile' | 'notes'>> {
  const folder = join(root, JOURNAL_FOLDER)
  const found = await readJournal(folder, output.path)
  return {
    async createFile(name, size) {
      await forgetLines(folder, name)
      return createFile(output, name, size)
    },
    notes: {
      earlier: notes.earlier,
      async write(file, text) {
        await notes.write(file, text)
        await forgetLines(folder, file)
      },
      journal: {
        earlier: new Map([...found].filter(([file]) => !notes.earlier.has(file))),
        reopen: (file) => createFile(output, file, undefined, true),
        append: (file, line) => appendLine(folder, file, line),
      },
    },
  }
}
