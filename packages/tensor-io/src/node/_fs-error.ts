import { ModelError } from '@polygraft/tensor'

const FULL = new Set(['ENOSPC', 'EDQUOT', 'EFBIG'])

/** The system's code of a failed call (`ENOENT`), if it is one. */
export function systemCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}

/** A failed file operation as a ModelError: "missing-file", "disk-full", else "io". Any other error stays what it is. */
export function fsError(cause: unknown, message: string, file: string): unknown {
  const code = systemCode(cause)
  if (cause instanceof ModelError || !(cause instanceof Error) || code === undefined) return cause
  const received = cause.message
  if (code === 'ENOENT' || code === 'ENOTDIR')
    return new ModelError(
      { code: 'missing-file', message: 'There is no such file or folder', file },
      { cause },
    )
  if (FULL.has(code)) {
    const next = 'Free space or choose another place for the output. Nothing was left behind.'
    return new ModelError({ code: 'disk-full', message: 'The disk is full', file, received, next }, { cause })
  }
  return new ModelError({ code: 'io', message, file, received }, { cause })
}
