import { styleText } from 'node:util'
import { progress } from '@clack/prompts'
import { ModelError } from '@polygraft/tensor'
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

export interface Meter {
  update(bytesDone: number, bytesTotal: number): void
  done(message?: string): void
}

const PLAIN_INTERVAL_MS = 2000
const TTY_INTERVAL_MS = 100

export function createTerminal(json: boolean): Terminal {
  return {
    json,
    result(object, text) {
      process.stdout.write(json ? `${JSON.stringify(object)}\n` : `${text()}\n`)
    },
    note(line) {
      if (!json) process.stderr.write(`${line}\n`)
    },
    progress: (label) => (process.stderr.isTTY && !json ? barMeter(label) : lineMeter(label)),
  }
}

/** Prints an error for people to stderr and, with --json, as `{ error }` to stdout. */
export function showError(error: unknown, json: boolean): void {
  const known = error instanceof ModelError
  const message = error instanceof Error ? error.message : String(error)
  if (json) {
    const problems = known ? error.problems : [{ code: 'failed', message }]
    process.stdout.write(
      `${JSON.stringify({ error: { code: known ? error.code : 'failed', message, problems } })}\n`,
    )
  }
  const detail = known || !(error instanceof Error) || !process.env.POLYGRAFT_DEBUG ? message : error.stack
  process.stderr.write(`${styleText('red', 'error')} ${detail}\n`)
}

function barMeter(label: string): Meter {
  const bar = progress({ max: 1000, output: process.stderr })
  const started = performance.now()
  let shown = 0
  let next = 0
  bar.start(label)
  return {
    update(done, total) {
      const now = performance.now()
      if (now < next) return
      next = now + TTY_INTERVAL_MS
      const target = Math.floor((done / Math.max(1, total)) * 1000)
      bar.advance(target - shown, `${label} ${describe(done, total, now - started)}`)
      shown = target
    },
    done: (message) => bar.stop(message ?? label),
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
