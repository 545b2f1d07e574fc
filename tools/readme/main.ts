// `npm run readme [-- --write] [packages/x README.md ...]`: runs the documentation's examples and commands; `--write` puts what
// they print into it.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { putOutputs, trimOutput } from './blocks.js'
import { documents, packageReadmes, ROOT, readDocument, runDocument, runPackageReadme } from './run.js'

const args = process.argv.slice(2)
const asked = args
  .filter((arg) => !arg.startsWith('-'))
  .map((arg) => (arg.endsWith('.md') ? arg : join(arg, 'README.md')))
const write = args.includes('--write')

for (const file of asked.length > 0 ? asked : [...packageReadmes(), ...documents()]) {
  try {
    console.log(`${file}: ${check(file)}`)
  } catch (error) {
    console.error(`${file}: ${error instanceof Error ? error.message : error}`)
    process.exitCode = 1
  }
}

function check(file: string): string {
  const outputs = file.startsWith('packages/') ? runPackageReadme(file) : runDocument(file)
  const stale = outputs.filter(({ block, printed }) => trimOutput(block.code) !== printed)
  if (stale.length === 0) return 'ok'
  if (!write) {
    const printed = stale.map((output) => output.printed).join('\n\n')
    throw new Error(`now prints\n${printed}\nnpm run readme -- --write ${file} puts that in`)
  }
  writeFileSync(join(ROOT, file), putOutputs(readDocument(file), stale))
  return 'updated'
}
