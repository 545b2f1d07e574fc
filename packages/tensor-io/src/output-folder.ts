import type { ByteSource } from '@polygraft/tensor'

/** A file of an output folder. Positions may be written in any order; `write` resolves when all bytes are handed over. */
export interface OutputFile {
  write(bytes: Uint8Array, position: number): Promise<void>
  /** Flushes to the disk. */
  close(): Promise<void>
}

/** A folder that appears under its own name complete, or not at all. */
export interface OutputFolder {
  /** The temporary folder beside the final one, where it is on a local file system. */
  readonly path?: string
  /** @param size Final size in bytes, if known. */
  createFile(name: string, size?: number): Promise<OutputFile>
  writeFile(name: string, data: Uint8Array | string | ByteSource): Promise<void>
  /** What has been written to a file, for reading it back. */
  read(name: string): Promise<ByteSource>
  /** Flushes everything and renames the folder to its final name. */
  publish(): Promise<void>
  /** Removes everything. Does nothing after `publish` or a second time. */
  discard(): Promise<void>
  /** Where the folder survives its process (see `resumeFolder`): what was noted of finished files. */
  readonly notes?: Notes
}

/** Short texts by file name that are kept with an unpublished folder, for the run that goes on with it. */
export interface Notes {
  /** Those of earlier runs, for files that are still there. */
  readonly earlier: ReadonlyMap<string, string>
  /** Keeps `text` durably. The file must be closed before. */
  write(file: string, text: string): Promise<void>
}
