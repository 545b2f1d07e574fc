import { mkdir, readdir, rmdir, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { throwIfAny } from '@polygraft/tensor'
import { systemCode } from './_fs-error.js'
import { appendLine, forgetLines, readJournal } from './_journal.js'
import { acquireLock } from './_lock.js'
import { forgetLost, forgetNote } from './_notes.js'
import { removeTree, restoreAside } from './_replace.js'
import {
  ASIDE,
  attempt,
  type FolderNotes,
  ignore,
  JOURNAL_FOLDER,
  KEY_FILE,
  LOCK_FILE,
  NOTES_FOLDER,
  notesOf,
  OUTPUT_FOLDER,
  planProblems,
  type ResumeOptions,
  readKey,
  requireKey,
  workFolder,
} from './_work-folder.js'
import { writeDurably } from './_write-durably.js'
import {
  beginOutput,
  closeAll,
  createFile,
  folderOf,
  type LocalFolder,
  type Output,
  removeEmptyParents,
} from './create-folder.js'
import { existingProblems, resolveTarget, targetProblems } from './output-problems.js'

/** Files that outlive a run: those that are finished, and those that the next one goes on with. */
export interface Kept {
  readonly finished: number
  readonly begun: number
}

/** An output folder that outlives its process. */
export interface ResumableFolder extends LocalFolder {
  readonly notes: FolderNotes
  /**
   * Ends this run and keeps the files that were noted or begun for the next one with the same key; where there is none, discards.
   * @returns How many are noted, and how many begun.
   */
  leave(): Promise<Kept>
}

const MAX_ENTRIES = 5

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
      if (notes.earlier.has(name)) await forgetNote(join(root, NOTES_FOLDER), name)
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
