import { randomBytes } from 'node:crypto'
import { open, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { syncFolder } from './_replace.js'

/**
 * Writes a small file so that, whenever the machine stops, it has its old content or the new one, never a part.
 * @param workplace The folder, of the same file system, in which it grows.
 * @param place Gives what has grown its name; the default replaces what had it.
 */
export async function writeDurably(
  path: string,
  text: string,
  workplace = dirname(path),
  place: (grown: string, path: string) => Promise<void> = rename,
): Promise<void> {
  const temporary = join(workplace, `.${basename(path)}-${process.pid}-${randomBytes(4).toString('hex')}`)
  try {
    const handle = await open(temporary, 'wx')
    try {
      await handle.writeFile(text)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await place(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  await syncFolder(dirname(path))
}
