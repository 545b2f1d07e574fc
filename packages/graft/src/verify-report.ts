import type { Vocabularies } from '@polygraft/delta'

/** One property that was checked. */
export interface Check {
  readonly name: string
  readonly ok: boolean
  /** What was compared, with counts; or where it failed. */
  readonly detail: string
}

export interface VerifyReport {
  /** Whether every check holds. */
  readonly ok: boolean
  readonly checks: readonly Check[]
}

export interface VerifyOptions {
  /** Read from the checkpoints where left out. */
  readonly vocabularies?: Vocabularies
  /** Told how many of the output's bytes are compared. */
  readonly onProgress?: (bytesDone: number, bytesTotal: number) => void
  readonly signal?: AbortSignal
}

/** The checks together. */
export function reportOf(checks: readonly Check[]): VerifyReport {
  return { ok: checks.every(({ ok }) => ok), checks }
}

/** A check that fails for the things named in `wrong`, and otherwise says `detail`. */
export function checkOf(name: string, wrong: readonly string[], detail: string): Check {
  const rest = wrong.length > 5 ? ` and ${wrong.length - 5} more` : ''
  const ok = wrong.length === 0
  return { name, ok, detail: ok ? detail : `${wrong.slice(0, 5).join(', ')}${rest}` }
}
