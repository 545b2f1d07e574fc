// What must never be in the repository: this machine's paths, a registry's host, big files, strays at the top level, links to
// files that are not there.
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const TOP_LEVEL =
  /^(package\.json|pnpm-lock\.yaml|pnpm-workspace\.yaml|turbo\.json|tsconfig\.base\.json|README\.md|LICENSE|CONTRIBUTING\.md|packages|apps|tools|docs|\..+)$/
const MAX_BYTES = 2 * 2 ** 20
/** Test data may be bigger, and is not text. */
const DATA = /(^|\/)(fixtures|golden)\/|\.safetensors$/
/** Home folders on Linux and macOS, and Windows drives. */
const HOME_PATH = /(?<![\w.])\/(home|Users)\/[a-z][\w-]*\/|(?<![\w./])\/root\/|\b[A-Z]:\\Users\\/
/** `[text](path)` of Markdown, without what points elsewhere or into the same page. */
const LINK = /\]\((?!\w+:|#)([^)#\s]+)/g
const URL_IN_LOCKFILE = /https?:\/\/|tarball:/

const files = execFileSync('git', ['ls-files', '-z'], { cwd: root, encoding: 'utf8' })
  .split('\0')
  .filter((file) => file !== '' && existsSync(join(root, file)))

const problems = files.flatMap((file) => [
  ...(TOP_LEVEL.test(file.split('/')[0] ?? '') ? [] : [`${file}: nothing else stands at the top level`]),
  ...(DATA.test(file) ? [] : [...sizeProblems(file), ...textProblems(file)]),
  ...(file.endsWith('.md') ? linkProblems(file) : []),
])
for (const problem of problems) console.error(problem)
process.exitCode = problems.length > 0 ? 1 : 0

function sizeProblems(file: string): string[] {
  const { size } = statSync(join(root, file))
  return size > MAX_BYTES ? [`${file}: ${size} bytes, more than ${MAX_BYTES}`] : []
}

function textProblems(file: string): string[] {
  const here = [root, homedir()].filter((path) => path.length > 1).map((path) => `${path}/`)
  return readFileSync(join(root, file), 'utf8')
    .split('\n')
    .flatMap((line, i) => {
      const path = HOME_PATH.exec(line)?.[0] ?? here.find((prefix) => line.includes(prefix))
      const host = file === 'pnpm-lock.yaml' && URL_IN_LOCKFILE.test(line)
      return [
        ...(path ? [`${file}:${i + 1}: a path of one machine: ${path}`] : []),
        ...(host ? [`${file}:${i + 1}: the lockfile names a host: ${line.trim()}`] : []),
      ]
    })
}

function linkProblems(file: string): string[] {
  return [...readFileSync(join(root, file), 'utf8').matchAll(LINK)]
    .map(([, target]) => join(dirname(file), target!))
    .filter((target) => !existsSync(join(root, target)))
    .map((target) => `${file}: links to ${target}, which is not there`)
}
