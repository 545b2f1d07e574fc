import { MANIFEST_FILE } from '@polygraft/engine'
import { type ByteSource, ModelError } from '@polygraft/tensor'
import type { OutputFile, OutputFolder } from '@polygraft/tensor-io'
import type { Target } from './api.js'

/** Of a file in the page's own storage, in workers only: no browser's types for pages have it. */
interface SyncAccess {
  write(bytes: Uint8Array, options: { at: number }): number
  truncate(size: number): void
  flush(): void
  close(): void
}

/**
 * A folder to write a checkpoint into, in a picked folder or in the page's own storage. Browsers rename no folder, so what is
 * whole is told by `polygraft.json`, which is written last; `discard` removes all.
 * @throws ModelError 'output-exists' where a picked folder already has one of that name.
 */
export async function createOutput(target: Target): Promise<OutputFolder> {
  const parent = target.kind === 'folder' ? target.folder : await storage()
  const { name } = target
  if (target.kind === 'storage') await parent.removeEntry(name, { recursive: true }).catch(() => undefined)
  else if (await has(parent, name)) throw outputExists(`${parent.name}/${name}`)
  const folder = await guarded(() => parent.getDirectoryHandle(name, { create: true }))
  const open = target.kind === 'storage' ? openDirectly : openStream
  const createFile = (file: string, size?: number) => guarded(() => open(folder, file, size))
  return {
    createFile,
    async writeFile(file, data) {
      const output = await createFile(file)
      await output.write(await bytesOf(data), 0)
      await output.close()
    },
    read: async (file) => (await folder.getFileHandle(file)).getFile(),
    publish: async () => {},
    discard: () => parent.removeEntry(name, { recursive: true }),
  }
}

/** Files of an output in the page's own storage. @throws ModelError 'missing-file' when none is whole under that name. */
export async function readOutput(name: string): Promise<ReadonlyMap<string, File>> {
  const folder = await (await storage()).getDirectoryHandle(name).catch(() => undefined)
  const files = new Map<string, File>()
  if (folder)
    for await (const [file, handle] of folder.entries())
      if (handle.kind === 'file') files.set(file, await (handle as FileSystemFileHandle).getFile())
  if (files.has(MANIFEST_FILE)) return files
  throw new ModelError({
    code: 'missing-file',
    message: 'There is no such output in this browser',
    file: name,
  })
}

function storage(): Promise<FileSystemDirectoryHandle> {
  return navigator.storage.getDirectory()
}

/** At once, without a copy of the file; only the page's own storage has it. */
async function openDirectly(folder: FileSystemDirectoryHandle, file: string, size = 0): Promise<OutputFile> {
  const handle = await folder.getFileHandle(file, { create: true })
  const access = await (
    handle as unknown as { createSyncAccessHandle(): Promise<SyncAccess> }
  ).createSyncAccessHandle()
  // Claims the space, so that a full disk is found out at the beginning.
  access.truncate(size)
  return {
    write: (bytes, at) => guarded(async () => void access.write(bytes, { at })),
    flush: async () => access.flush(),
    close: () =>
      guarded(async () => {
        access.flush()
        access.close()
      }),
  }
}

/** Into a copy that takes the file's place when it is closed. */
async function openStream(folder: FileSystemDirectoryHandle, file: string): Promise<OutputFile> {
  const stream = await (await folder.getFileHandle(file, { create: true })).createWritable()
  return {
    // Bytes are only good until the write returns, and a stream may keep them.
    write: (bytes, position) => guarded(() => stream.write({ type: 'write', position, data: bytes.slice() })),
    flush: async () => {},
    close: () => guarded(() => stream.close()),
  }
}

async function has(parent: FileSystemDirectoryHandle, name: string): Promise<boolean> {
  for await (const known of parent.keys()) if (known === name) return true
  return false
}

async function bytesOf(data: Uint8Array | string | ByteSource): Promise<Uint8Array> {
  if (typeof data === 'string') return new TextEncoder().encode(data)
  return data instanceof Uint8Array ? data : new Uint8Array(await data.arrayBuffer())
}

function outputExists(file: string): ModelError {
  return new ModelError({
    code: 'output-exists',
    message: 'There is already something of this name',
    file,
    next: 'Choose another name or folder.',
  })
}

/** What browsers say of a full disk and of a permission that was withdrawn, as problems. */
async function guarded<T>(step: () => Promise<T>): Promise<T> {
  try {
    return await step()
  } catch (cause) {
    const name = cause instanceof Error ? cause.name : ''
    if (name === 'QuotaExceededError')
      throw new ModelError(
        {
          code: 'disk-full',
          message: 'The browser gives no more space',
          next: 'Free some space, remove site data, or write into a folder of your own.',
        },
        { cause },
      )
    if (name === 'NotAllowedError')
      throw new ModelError(
        {
          code: 'permission',
          message: 'The browser may no longer write here',
          next: 'Pick the folder again.',
        },
        { cause },
      )
    throw cause
  }
}
