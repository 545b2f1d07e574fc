// `npm run check [-- --fix]`: every check that needs no test run. All run even when one fails; each prints one line, and its log on failure.
import { spawn } from 'node:child_process'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { PNPM } from './bootstrap/pnpm.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const fix = process.argv.includes('--fix')

const TURBO = `npx -y ${PNPM} exec turbo run --continue`
const STEPS: readonly (readonly [title: string, command: string])[] = [
  [
    'format and lint (biome)',
    fix
      ? 'biome check --write --error-on-warnings --colors=off'
      : 'biome ci --error-on-warnings --colors=off',
  ],
  ['types (tsc)', `${TURBO} types --output-logs=errors-only --log-order=grouped`],
  ['build (tsup)', 'node tools/bootstrap.mjs'],
  ['layers and their diagram', `tsx tools/layers/main.ts${fix ? ' --fix' : ''}`],
  ['unused files, exports, dependencies (knip)', 'knip --no-progress'],
  ['packages as published (publint, node, tsc)', 'tsx tools/publish/main.ts'],
  ['hygiene of the repository', 'tsx tools/hygiene.ts'],
]

let failed = 0
for (const [title, command] of STEPS) {
  const start = Date.now()
  const { code, log } = await runQuietly(command)
  console.log(`${code === 0 ? 'ok    ' : 'FAILED'} ${title}, ${((Date.now() - start) / 1000).toFixed(1)} s`)
  if (code === 0) continue
  failed++
  console.log(`${log.trimEnd().replace(/^/gm, '  | ')}\n  | command: ${command}`)
}
console.log(`checks: ${STEPS.length - failed} passed, ${failed} failed`)
process.exitCode = failed > 0 ? 1 : 0

function runQuietly(command: string): Promise<{ code: number; log: string }> {
  const path = [join(root, 'node_modules/.bin'), process.env.PATH].join(delimiter)
  const quiet = {
    NO_COLOR: '1',
    FORCE_COLOR: undefined,
    TURBO_TELEMETRY_DISABLED: '1',
    npm_config_loglevel: 'error',
  }
  return new Promise((resolve) => {
    const child = spawn(command, {
      cwd: root,
      shell: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...quiet, PATH: path },
    })
    let log = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (log += chunk))
    child.on('close', (code) => resolve({ code: code ?? 1, log }))
  })
}
