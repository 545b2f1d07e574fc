import { appendFileSync } from 'node:fs'
import { readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'

/*
 * A text file for each file that is being written, a line for each step. Lines are not flushed: whoever goes on checks what they
 * say of the file's bytes, which are not on the disk for sure either.
 */

/** Whole lines by file, of files in `path` that are there. */
export async function readJournal(journal: string, path: string): Promise<Map<string, readonly string[]>> {
  const found = new Map<string, readonly string[]>()
  for (const file of await readdir(journal)) {
    const isThere = await stat(join(path, file)).then(
      (stats) => stats.isFile(),
      () => false,
    )
    const text = await readFile(join(journal, file), 'utf8')
    const lines = text
      .slice(0, text.lastIndexOf('\n') + 1)
      .split('\n')
      .slice(0, -1)
    if (isThere && lines.length > 0) found.set(file, lines)
  }
  return found
}

/** Adds a line. Where that fails nothing is lost but work, if the run is killed: the disk's being full shows elsewhere. */
export function appendLine(journal: string, file: string, line: string): void {
  try {
    appendFileSync(join(journal, file), `${line}\n`)
  } catch {}
}

/** Removes the lines of a file. */
export async function forgetLines(journal: string, file: string): Promise<void> {
  await rm(join(journal, file), { force: true })
}
