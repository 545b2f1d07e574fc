// Sets a clone up: `node tools/bootstrap.mjs` installs what the lockfile says and builds, each only when needed; with
// `--only-install` it does not build.
// Plain JavaScript without dependencies, because it runs before there are any. Says little, on stderr; the whole log on failure.
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { PNPM, pnpm } from './bootstrap/pnpm.mjs'
import { buildState, installState, readStamp, writeStamp } from './bootstrap/stamp.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const HEARTBEAT_MS = 15_000

requireNode(20, 19)
if (readStamp(root, 'install') !== installState(root)) await install()
if (
  !process.argv.includes('--only-install') &&
  readStamp(root, 'build') !== (buildState(root) ?? 'not built')
)
  await build()

/**
 * Exits with a sentence when this Node is older.
 * @param {number} major
 * @param {number} minor
 */
function requireNode(major, minor) {
  const [haveMajor = 0, haveMinor = 0] = process.versions.node.split('.').map(Number)
  if (haveMajor > major || (haveMajor === major && haveMinor >= minor)) return
  console.error(
    `polygraft needs Node ${major}.${minor} or newer; this is Node ${process.versions.node} (${process.execPath}).\n` +
      'Install a newer one (https://nodejs.org) and run the command again.',
  )
  process.exit(1)
}

async function install() {
  await step(`installing packages with ${PNPM}`, ['install', '--frozen-lockfile'], (log) =>
    /OUTDATED_LOCKFILE|frozen-lockfile/i.test(log)
      ? 'If you changed a package.json, update the lockfile: npm run pnpm -- install'
      : 'If the network was the cause, run the command again.',
  )
  writeStamp(root, 'install', installState(root))
}

async function build() {
  const args = ['exec', 'turbo', 'run', 'build', '--output-logs=errors-only', '--log-order=grouped']
  await step('building', args, () => 'The log above says which package failed.')
  writeStamp(root, 'build', buildState(root) ?? '')
}

/**
 * Runs one pnpm command quietly; on failure prints its log and exits.
 * @param {string} title
 * @param {readonly string[]} args
 * @param {(log: string) => string} advice
 */
async function step(title, args, advice) {
  const start = Date.now()
  const seconds = () => `${Math.round((Date.now() - start) / 1000)} s`
  console.error(`set-up: ${title} ...`)
  const heartbeat = setInterval(() => console.error(`set-up: still ${title}, ${seconds()}`), HEARTBEAT_MS)
  const { code, log } = await pnpm(args, { cwd: root, onOutput: () => {} })
  clearInterval(heartbeat)
  if (code !== 0) {
    console.error(`${log}\nset-up: ${title} failed after ${seconds()}. ${advice(log)}`)
    process.exit(1)
  }
  console.error(`set-up: done in ${seconds()}`)
}
