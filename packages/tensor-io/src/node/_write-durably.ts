import { randomBytes } from 'node:crypto'
import { open, rename } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { syncFolder } from './_replace.js'

/** Writes a small file so that, whenever the machine stops, it has its old content or the new one, never a part. */
export async function writeDurably(path: string, text: string): Promise<void> {
  const temporary = join(
    dirname(dirname(path)),
    `.${basename(path)}-${process.pid}-${randomBytes(4).toString('hex')}`,
  )
  const handle = await open(temporary, 'wx')
  try {
    await handle.writeFile(text)
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(temporary, path)
  await syncFolder(dirname(path))
}
