import { randomBytes } from 'node:crypto'
import { open, rename } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { systemCode } from './_fs-error.js'

const NO_FOLDER_SYNC = new Set(['EISDIR', 'EPERM', 'EINVAL', 'ENOTSUP'])

/** A name beside `target` that nobody else uses, hidden. */
export function siblingName(target: string, mark: string): string {
  // File systems end names at 255 bytes.
  return `.${basename(target).slice(0, 50)}.${mark}-${process.pid}-${randomBytes(4).toString('hex')}`
}

/**
 * Gives the folder `path` the name `target`. What had the name steps aside first, and back if that fails: there is always
 * a complete folder, the old one or the new one.
 * @returns Where the old folder is now, to be removed; undefined when there was none.
 */
export async function swapIn(path: string, target: string): Promise<string | undefined> {
  const aside = join(dirname(target), siblingName(target, 'polygraft-old'))
  const existed = await renameIfThere(target, aside)
  try {
    await rename(path, target)
  } catch (error) {
    if (existed) await rename(aside, target)
    throw error
  }
  return existed ? aside : undefined
}

async function renameIfThere(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to)
    return true
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return false
    throw error
  }
}

/** Makes renames and new names durable. Some file systems cannot, and need not. */
export async function syncFolder(path: string): Promise<void> {
  try {
    const handle = await open(path, 'r')
    await handle.sync().finally(() => handle.close())
  } catch (error) {
    if (!NO_FOLDER_SYNC.has(systemCode(error) ?? '')) throw error
  }
}
