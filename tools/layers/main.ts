// Checks the layers of packages/ and apps/, and that the diagram in docs/architecture.md is the real graph (`--fix` redraws it).
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { drawDiagram, putDiagram } from './diagram.js'
import { layerProblems } from './rules.js'
import { scanPackages } from './scan.js'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const DOCUMENT = 'docs/architecture.md'

const packages = scanPackages(root)
const problems = [...layerProblems(packages), ...diagramProblems(process.argv.includes('--fix'))]
for (const problem of problems) console.error(problem)
process.exitCode = problems.length > 0 ? 1 : 0

function diagramProblems(fix: boolean): string[] {
  const document = readFileSync(join(root, DOCUMENT), 'utf8')
  const wanted = putDiagram(document, drawDiagram(packages))
  if (wanted === undefined) return [`${DOCUMENT}: the marks around the diagram are missing`]
  if (wanted === document) return []
  if (!fix) return [`${DOCUMENT}: the diagram is not the real graph; run npm run check -- --fix`]
  writeFileSync(join(root, DOCUMENT), wanted)
  return []
}
