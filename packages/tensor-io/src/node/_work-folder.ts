import { readFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { ModelError, type Problem } from '@polygraft/tensor'
import { fsError } from './_fs-error.js'
import { readNotes, writeNote } from './_notes.js'
import { guarded, type LocalFolder, type Output } from './create-folder.js'
import { type CreateOptions, targetProblems } from './output-problems.js'

/*
 * The hidden folder beside an output in which it grows: the key of what is being written, a lock, notes of what is finished, a
 * journal of what is begun, and the output itself.
 */

export interface ResumeOptions extends CreateOptions {
  /** Names what is being written: only a folder that was begun with the same key is gone on with. */
  readonly key: string
  /** Whether it is gathered from `taskFolder`s, which others may be writing to: another key is then an error. */
  readonly gathered?: boolean
}

/** Notes of an output that outlives its process. */
export type FolderNotes = NonNullable<LocalFolder['notes']>

export const KEY_FILE = 'key'
export const LOCK_FILE = 'lock'
export const NOTES_FOLDER = 'notes'
export const JOURNAL_FOLDER = 'journal'
export const OUTPUT_FOLDER = 'output'
export const ASIDE = 'replaced'

/** Where it is. */
export function workFolder(target: string, gathered = false): string {
  return join(dirname(target), `.${basename(target).slice(0, 200)}.polygraft${gathered ? '-plan' : ''}`)
}

/** Does a step of making the folder for the output `dir`. */
export async function attempt<T>(dir: string, step: () => Promise<T>): Promise<T> {
  try {
    return await step()
  } catch (cause) {
    throw fsError(cause, 'The output folder cannot be made', dir)
  }
}

/** Of an error that changes nothing. */
export function ignore(): void {}

/** `targetProblems`, for those who can choose no other output. */
export async function planProblems(target: string, options: CreateOptions): Promise<Problem[]> {
  const next = 'If this plan has been finished, nothing is left to be done; otherwise make the plan again.'
  const problems = await targetProblems(target, options)
  return problems.map((problem) => (problem.code === 'exists' ? { ...problem, next } : problem))
}

export async function readKey(root: string): Promise<string | undefined> {
  return readFile(join(root, KEY_FILE), 'utf8').catch(() => undefined)
}

export async function requireKey(root: string, key: string): Promise<void> {
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

/** @param path Where the files are that are noted. */
export async function notesOf(output: Output, root: string, path: string): Promise<FolderNotes> {
  const folder = join(root, NOTES_FOLDER)
  return {
    earlier: await readNotes(folder, path),
    write: (file, text) => guarded(output, file, () => writeNote(folder, path, file, text)),
  }
}
