// `npm test [-- paths or vitest options]`: every test on the sources, then once more on what the build made of them.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const TARGETS = ['src', 'dist'] as const

const runs = TARGETS.map((target) => runTests(target, process.argv.slice(2)))
const sum = (key: 'passed' | 'failed' | 'skipped') => runs.reduce((total, run) => total + run[key], 0)
console.log(
  `tests on src and on dist: ${sum('passed')} passed, ${sum('failed')} failed, ${sum('skipped')} skipped`,
)
process.exitCode = runs.some(({ ok }) => !ok) ? 1 : 0

function runTests(target: (typeof TARGETS)[number], args: readonly string[]) {
  console.log(`\n--- tests on ${target} ---`)
  const report = join(root, 'node_modules', '.polygraft', `vitest-${target}.json`)
  rmSync(report, { force: true })
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`]
  const { status } = spawnSync(
    process.execPath,
    [
      join(root, 'node_modules/vitest/vitest.mjs'),
      'run',
      '--config=tools/vitest.config.ts',
      ...reporters,
      ...args,
    ],
    { cwd: root, stdio: 'inherit', env: { ...process.env, POLYGRAFT_TEST: target } },
  )
  return { ok: status === 0, ...counts(report) }
}

/** Vitest's own figures; all zero when it did not get as far as writing them. */
function counts(report: string) {
  if (!existsSync(report)) return { passed: 0, failed: 0, skipped: 0 }
  const { numPassedTests, numFailedTests, numPendingTests } = JSON.parse(readFileSync(report, 'utf8'))
  return { passed: numPassedTests, failed: numFailedTests, skipped: numPendingTests }
}
