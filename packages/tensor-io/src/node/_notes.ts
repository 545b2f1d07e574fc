import { readdir, readFile, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { syncFolder } from './_replace.js'
import { writeDurably } from './_write-durably.js'

/**
 * Notes of finished files: a file each, in a folder of their own, with the size of the file on the first line. They are
 * written when the file is on the disk, so size and presence tell whether it was lost since; whether its content is what was
 * noted is for the reader of the note to see.
 */
export async function writeNote(notes: string, path: string, file: string, text: string): Promise<void> {
  // The file's own name must be on the disk before a note says that it is.
  await syncFolder(path)
  const { size } = await stat(join(path, file))
  await writeDurably(join(notes, file), `${size}\n${text}`, dirname(notes))
}

/** Texts by file, of files in `path` that are what was noted. */
export async function readNotes(notes: string, path: string): Promise<Map<string, string>> {
  const found = new Map<string, string>()
  for (const file of await readdir(notes)) {
    const note = await readFile(join(notes, file), 'utf8')
    const size = (await stat(join(path, file)).catch(() => undefined))?.size
    const end = note.indexOf('\n')
    if (note.slice(0, end) === `${size}`) found.set(file, note.slice(end + 1))
  }
  return found
}

/**
 * Removes the notes of files that are gone or of another size. They must not be there when such a file is made anew: it has
 * its full size from the first byte on.
 */
export async function forgetLost(notes: string, path: string): Promise<void> {
  const kept = await readNotes(notes, path)
  const lost = (await readdir(notes)).filter((file) => !kept.has(file))
  for (const file of lost) await rm(join(notes, file), { recursive: true, force: true })
  if (lost.length > 0) await syncFolder(notes)
}

/** Removes one note, durably. */
export async function forgetNote(notes: string, file: string): Promise<void> {
  await rm(join(notes, file), { force: true })
  await syncFolder(notes)
}
