import { link, mkdir, rename, rm, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { ModelError, throwIfAny } from '@polygraft/tensor'
import { systemCode } from './_fs-error.js'
import { removeTree, siblingName } from './_replace.js'
import {
  attempt,
  type FolderNotes,
  ignore,
  KEY_FILE,
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
import { beginOutput, folderOf, guarded, type LocalFolder } from './create-folder.js'
import { resolveTarget } from './output-problems.js'

/**
 * Joins in an output that several processes write, perhaps on several machines: each writes files of its own in a folder of
 * its own, and a file that is noted moves into the common one whole. Twice the same file is no harm.
 * @throws ModelError 'plan-conflict' when the output was begun under another key, and those of `createFolder` about `dir`.
 */
export async function taskFolder(
  dir: string,
  { key, ...options }: ResumeOptions,
): Promise<LocalFolder & { notes: FolderNotes }> {
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
