import type { ByteSource } from '@polygraft/tensor'

/** A file of an output folder. Positions may be written in any order; `write` resolves when all bytes are handed over. */
export interface OutputFile {
  write(bytes: Uint8Array, position: number): Promise<void>
  /** Hands to the disk what is written so far, so that closing has less to wait for. */
  flush(): Promise<void>
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
  /** Where unfinished files outlive their process as well. */
  readonly journal?: Journal
}

/** How far files have come, step by step. Unlike a note, a line must be checked against the bytes before it is believed. */
export interface Journal {
  /** Lines of earlier runs, by file, for files that are still there and not noted. */
  readonly earlier: ReadonlyMap<string, readonly string[]>
  /** Goes on with a file that `earlier` has, in place of `createFile`, which forgets its lines. */
  reopen(file: string): Promise<OutputFile>
  append(file: string, line: string): void
}
