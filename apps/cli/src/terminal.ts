import { styleText } from 'node:util'
import { ModelError, type Problem } from '@polygraft/tensor'
import { formatBytes } from './format.js'

/** Where a command's words go: its result to stdout (one JSON object there with --json), all else to stderr. */
export interface Terminal {
  readonly json: boolean
  /** The result: `object` with --json, otherwise `text`. */
  result(object: unknown, text: () => string): void
  /** A line for people only. */
  note(line: string): void
  /** Shows how far a long job is. Unit: bytes. */
  progress(label: string): Meter
}

interface Meter {
  update(bytesDone: number, bytesTotal: number): void
  /** Takes the display away again. */
  done(): void
}

const PLAIN_INTERVAL_MS = 2000
const TTY_INTERVAL_MS = 100

export function createTerminal(json: boolean): Terminal {
  const canDraw = process.stderr.isTTY && process.env.TERM !== 'dumb'
  return {
    json,
    result(object, text) {
      process.stdout.write(json ? `${JSON.stringify(object)}\n` : `${text()}\n`)
    },
    note(line) {
      if (!json) process.stderr.write(`${line}\n`)
    },
    progress: (label) => (canDraw && !json ? barMeter(label) : lineMeter(label)),
  }
}

/** `polygraft inspect x | head` closes stdout early; that is no failure of ours. */
export function endQuietlyWithReader(): void {
  process.stdout.once('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
    process.exit()
  })
}

/** Prints an error for people to stderr and, with --json, as `{ error }` to stdout. */
export function showError(error: unknown, json: boolean): void {
  const known = error instanceof ModelError
  const message = error instanceof Error ? error.message : String(error)
  if (json) showJsonError(known ? error.problems : [{ code: 'failed', message }], message)
  const detail = known || !(error instanceof Error) || !process.env.POLYGRAFT_DEBUG ? message : error.stack
  process.stderr.write(`${styleText('red', 'error', { stream: process.stderr })} ${detail}\n`)
}

/** `{ error: { code, message, problems } }` on stdout; the code is that of the first problem. */
export function showJsonError(problems: readonly Problem[], message: string): void {
  const error = { code: problems[0]?.code ?? 'failed', message, problems }
  process.stdout.write(`${JSON.stringify({ error })}\n`)
}

const BAR_CELLS = 24
const CLEAR_LINE = '\r\x1b[K'

/** One line that is drawn again and again. It never takes the keyboard, so that Ctrl-C stays a signal. */
function barMeter(label: string): Meter {
  const started = performance.now()
  let next = 0
  return {
    update(done, total) {
      const now = performance.now()
      if (now < next) return
      next = now + TTY_INTERVAL_MS
      const full = Math.floor((done / Math.max(1, total)) * BAR_CELLS)
      const bar = `${'━'.repeat(full)}${'─'.repeat(BAR_CELLS - full)}`
      const line = `${label} ${bar} ${describe(done, total, now - started)}`
      process.stderr.write(`${CLEAR_LINE}${line.slice(0, (process.stderr.columns || 80) - 1)}`)
    },
    done: () => process.stderr.write(CLEAR_LINE),
  }
}

function lineMeter(label: string): Meter {
  const started = performance.now()
  let next = started + PLAIN_INTERVAL_MS
  return {
    update(done, total) {
      const now = performance.now()
      if (now < next) return
      next = now + PLAIN_INTERVAL_MS
      process.stderr.write(`${label} ${describe(done, total, now - started)}\n`)
    },
    done() {},
  }
}

function describe(done: number, total: number, elapsedMs: number): string {
  const rate = done / Math.max(1e-3, elapsedMs / 1000)
  const left = rate > 0 ? (total - done) / rate : 0
  const share = Math.floor((done / Math.max(1, total)) * 100)
  return `${share} %  ${formatBytes(done)} of ${formatBytes(total)}  ${formatBytes(Math.round(rate))}/s  ${Math.ceil(left)} s left`
}
