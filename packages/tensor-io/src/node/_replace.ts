import { randomBytes } from 'node:crypto'
import { lstat, open, rename, rm } from 'node:fs/promises'
import { basename } from 'node:path'
import { systemCode } from './_fs-error.js'

const NO_FOLDER_SYNC = new Set(['EISDIR', 'EPERM', 'EINVAL', 'ENOTSUP'])

/** A name beside `target` that nobody else uses, hidden. */
export function siblingName(target: string, mark: string): string {
  // File systems end names at 255 bytes.
  return `.${basename(target).slice(0, 50)}.${mark}-${process.pid}-${randomBytes(4).toString('hex')}`
}

/**
 * Gives the folder `path` the name `target`. What had the name steps to `aside` first, and back if that fails: there is
 * always a complete folder, the old one or the new one.
 */
export async function swapIn(path: string, target: string, aside: string): Promise<void> {
  const existed = await renameIfThere(target, aside)
  try {
    await rename(path, target)
  } catch (error) {
    if (existed) await rename(aside, target)
    throw error
  }
}

/** Removes what stepped aside, under another name: what is called `aside` is whole, also when this is interrupted. */
export async function removeAside(aside: string): Promise<void> {
  const leaving = `${aside}-leaving`
  await removeTree(leaving)
  if (await renameIfThere(aside, leaving)) await removeTree(leaving)
}

/** Puts what stepped aside back, unless its name is taken: the run that replaced it ended between its steps. */
export async function restoreAside(aside: string, target: string): Promise<void> {
  const isTaken = await lstat(target).catch(() => undefined)
  if (isTaken) await removeAside(aside)
  else await renameIfThere(aside, target)
}

/** Removes a file or folder, if it is there. */
export async function removeTree(path: string): Promise<void> {
  await rm(path, { recursive: true, force: true, maxRetries: 3 })
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
