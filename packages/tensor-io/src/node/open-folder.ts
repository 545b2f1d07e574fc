import { readdir, realpath, stat } from 'node:fs/promises'
import { basename, dirname, join, sep } from 'node:path'
import { type ByteSource, type Checkpoint, ModelError, type Problem, throwIfAny } from '@polygraft/tensor'
import { CONFIG, classify } from '../_classify.js'
import { compareCodePoints } from '../_names.js'
import { openFiles } from '../open-files.js'
import { fsError } from './_fs-error.js'
import { fileSource } from './file-source.js'

/**
 * Opens a checkpoint by its path: a folder, or one safetensors file (with the `config.json` beside it, if any).
 * @throws ModelError "missing-file", "not-a-checkpoint"; and as `openFolder`.
 */
export async function openPath(path: string): Promise<Checkpoint> {
  const found = await stat(path).catch((cause) => {
    throw fsError(cause, 'The checkpoint cannot be read', path)
  })
  if (found.isDirectory()) return openFolder(path)
  if (path.endsWith('.safetensors')) return openFile(path)
  throw new ModelError({
    code: 'not-a-checkpoint',
    message: 'A checkpoint is a folder or a safetensors file',
    received: path,
  })
}

/**
 * Opens the checkpoint in a folder, subfolders included; names that begin with a dot are left out. Symbolic links may
 * lead anywhere inside of the folder, and from a snapshot of the Hugging Face cache to its blobs.
 * @throws ModelError "missing-file"; "path-escape" with all links that leave the folder; and as `openFiles`.
 */
export async function openFolder(path: string): Promise<Checkpoint> {
  const { root, names } = await listFolder(path)
  const used = names.filter((name) => classify(name) !== 'foreign')
  const problems: Problem[] = []
  const files = new Map<string, ByteSource>()
  for (const name of used) {
    const target = await realpath(join(root, name)).catch(() => undefined)
    if (target === undefined) continue // A dangling link is a file that is not there.
    if (isAllowed(root, target)) files.set(name, fileSource(target))
    else if (classify(name) !== 'pickle') problems.push(escapes(name, target))
  }
  throwIfAny(problems)
  return openFiles(files, path)
}

async function openFile(path: string): Promise<Checkpoint> {
  const files = new Map<string, ByteSource>([[basename(path), fileSource(path)]])
  const config = join(dirname(path), CONFIG)
  const found = await stat(config).catch(() => undefined)
  if (found?.isFile()) files.set(CONFIG, fileSource(config))
  return openFiles(files, path)
}

async function listFolder(path: string): Promise<{ root: string; names: string[] }> {
  try {
    const root = await realpath(path)
    return { root, names: (await listFiles(root, '')).sort(compareCodePoints) }
  } catch (cause) {
    throw fsError(cause, 'The folder cannot be read', path)
  }
}

async function listFiles(root: string, folder: string): Promise<string[]> {
  const entries = await readdir(join(root, folder), { withFileTypes: true })
  const names: string[] = []
  for (const entry of entries) {
    const name = folder === '' ? entry.name : `${folder}/${entry.name}`
    if (entry.name.startsWith('.')) continue
    if (entry.isDirectory()) names.push(...(await listFiles(root, name)))
    else if (entry.isFile() || (entry.isSymbolicLink() && (await isFile(join(root, name))))) names.push(name)
  }
  return names
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() ?? false
}

/** `root` is `…/snapshots/<revision>`, and its files are links into `…/blobs` (huggingface_hub, cache layout). */
function isAllowed(root: string, target: string): boolean {
  if (target.startsWith(root.endsWith(sep) ? root : root + sep)) return true
  const snapshots = dirname(root)
  return basename(snapshots) === 'snapshots' && dirname(target) === join(dirname(snapshots), 'blobs')
}

function escapes(file: string, target: string): Problem {
  return {
    code: 'path-escape',
    message: 'A symbolic link leaves the folder of the checkpoint',
    file,
    expected: 'a file inside of the folder',
    received: target,
    next: 'Copy the file into the folder, or open the folder that it comes from.',
  }
}
