// `npm run test:web` here: builds the site and walks through it in Chromium. Needs Debian's chromium, or CHROMIUM to name another.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'vite'

const app = fileURLToPath(new URL('..', import.meta.url))
const root = join(app, '../..')
const report = join(root, 'node_modules', '.polygraft', 'vitest-web.json')

await build({ root: app, configFile: join(app, 'vite.config.ts'), logLevel: 'warn' })
rmSync(report, { force: true })
const { status } = spawnSync(
  process.execPath,
  [
    join(root, 'node_modules/vitest/vitest.mjs'),
    'run',
    `--config=${join(app, 'e2e/vitest.config.ts')}`,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${report}`,
    ...process.argv.slice(2),
  ],
  { cwd: app, stdio: 'inherit' },
)
const { numPassedTests = 0, numFailedTests = 0 } = existsSync(report)
  ? JSON.parse(readFileSync(report, 'utf8'))
  : {}
console.log(`web: ${numPassedTests} passed, ${numFailedTests} failed`)
process.exitCode = status === 0 ? 0 : 1
