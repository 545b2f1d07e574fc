import { statfs } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { fsError, systemCode } from './_fs-error.js'

/** Bytes that can still be written where `dir` is, or will be: the nearest folder above it that exists counts. */
export async function freeBytes(dir: string): Promise<number> {
  const path = resolve(dir)
  try {
    const { bavail, bsize } = await statfs(path)
    return bavail * bsize
  } catch (error) {
    if (systemCode(error) === 'ENOENT' && dirname(path) !== path) return freeBytes(dirname(path))
    throw fsError(error, 'The free space cannot be read', dir)
  }
}
