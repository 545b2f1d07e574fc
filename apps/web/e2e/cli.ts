import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../../..', import.meta.url))
const PROGRAM = `${ROOT}apps/cli/bin/polygraft.js`

/** Path of one of the tiny checkpoints. */
export const trioPath = (name: string) => `${ROOT}tools/trio/checkpoints/${name}`

/** What the built command prints with --json. */
export function polygraft(...args: readonly string[]) {
  const printed = execFileSync(process.execPath, [PROGRAM, ...args, '--json'], {
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  return JSON.parse(printed)
}
