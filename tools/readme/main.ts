// `npm run readme [-- --write] [packages/x ...]`: runs the READMEs' examples; `--write` puts what they print into them.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findExample, trimOutput } from './blocks.js'
import { packageDirs, ROOT, readReadme, runExample } from './run.js'

const args = process.argv.slice(2)
const asked = args.filter((arg) => !arg.startsWith('-')).map((arg) => arg.replace(/\/$/, ''))
const dirs = asked.length > 0 ? asked : packageDirs()
const write = args.includes('--write')

for (const dir of dirs) {
  try {
    console.log(`${dir}/README.md: ${check(dir)}`)
  } catch (error) {
    console.error(`${dir}/README.md: ${error instanceof Error ? error.message : error}`)
    process.exitCode = 1
  }
}

function check(dir: string): string {
  const readme = readReadme(dir)
  const { code, output } = findExample(readme)
  const printed = runExample(dir, code)
  if (printed === trimOutput(output.code)) return 'ok'
  if (!write)
    throw new Error(`its example now prints\n${printed}\nnpm run readme -- --write ${dir} puts that in`)
  writeFileSync(
    join(ROOT, dir, 'README.md'),
    `${readme.slice(0, output.begin)}${printed}\n${readme.slice(output.end)}`,
  )
  return 'updated'
}
