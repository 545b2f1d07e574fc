import { spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findExample, findSessions, type Output, trimOutput } from './blocks.js'

/** The repository's root. */
export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

/** The packages' READMEs, which have an example. Paths are relative to the root. */
export const packageReadmes = () =>
  readdirSync(join(ROOT, 'packages'))
    .sort()
    .map((name) => `packages/${name}/README.md`)

/** What else has commands in it. */
export const documents = () =>
  [
    'README.md',
    'apps/cli/README.md',
    ...readdirSync(join(ROOT, 'docs')).map((name) => `docs/${name}`),
  ].filter((file) => file.endsWith('.md'))

/** A document's text; empty when there is none. */
export const readDocument = (file: string) =>
  existsSync(join(ROOT, file)) ? readFileSync(join(ROOT, file), 'utf8') : ''

/** Runs the example of a package's README. @throws Error when it has not exactly one, or when that fails. */
export function runPackageReadme(file: string): readonly Output[] {
  const { code, output } = findExample(readDocument(file))
  return [{ block: output, printed: runExample(file, code) }]
}

/** Runs the commands of a document, one after the other. @throws Error when one does not exit with 0. */
export function runDocument(file: string): readonly Output[] {
  const cwd = createScratchRoot()
  try {
    return findSessions(readDocument(file)).flatMap(({ commands, output }) => {
      const printed = trimOutput(commands.map((command) => runCommand(command, cwd)).join(''))
      return output ? [{ block: output, printed }] : []
    })
  } finally {
    rmSync(cwd, { recursive: true })
  }
}

/**
 * What `code` prints when it is run from the repository's root. It may import every package, by its public name.
 * @throws Error with what it wrote to stderr when it fails.
 */
function runExample(path: string, code: string): string {
  const file = join(exampleFolder(), `${nameOf(path)}-${process.pid}.ts`)
  writeFileSync(file, code)
  try {
    const tsx = join(ROOT, 'node_modules/tsx/dist/cli.mjs')
    return trimOutput(run(process.execPath, [tsx, file], ROOT))
  } finally {
    rmSync(file)
  }
}

/** What tsc says about the examples, by the READMEs that they stand in; empty when all is well. Strict, as in the packages. */
export function typeErrors(examples: ReadonlyMap<string, string>): string {
  const folder = mkdtempSync(join(exampleFolder(), 'types-'))
  try {
    for (const [file, code] of examples) writeFileSync(join(folder, `${nameOf(file)}.ts`), code)
    // With the web's types, which those who copy an example have by default.
    const compilerOptions = { lib: ['ES2023', 'DOM'] }
    const config = { extends: '../../../tsconfig.json', compilerOptions, include: ['*.ts'] }
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config))
    const tsc = join(ROOT, 'node_modules/typescript/lib/tsc.js')
    const { stdout } = spawnSync(process.execPath, [tsc, '-p', folder], { cwd: folder, encoding: 'utf8' })
    return stdout
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** Below tools/, because what may be imported depends on where a file lies and tools/ declares every package. */
function exampleFolder(): string {
  const folder = join(ROOT, 'tools', 'readme', '.run')
  mkdirSync(folder, { recursive: true })
  return folder
}

/** `tensor` for `packages/tensor/README.md`. */
const nameOf = (file: string) => basename(dirname(file))

/** A folder that looks like the repository's root to a command, but whose `out/` is its own. Remove it after use. */
function createScratchRoot(): string {
  const folder = mkdtempSync(join(tmpdir(), 'polygraft-readme-'))
  for (const name of ['apps', 'packages', 'tools', 'package.json'])
    symlinkSync(join(ROOT, name), join(folder, name))
  return folder
}

/** Runs `npx polygraft ...` in `cwd`, without npx, and gives its stdout. @throws Error when it does not exit with 0. */
function runCommand(command: string, cwd: string): string {
  const [, , ...args] = wordsOf(command)
  return run(process.execPath, [join(ROOT, 'apps/cli/bin/polygraft.js'), ...args], cwd)
}

function run(program: string, args: readonly string[], cwd: string): string {
  const env = { ...process.env, NO_COLOR: '1', FORCE_COLOR: undefined }
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd, encoding: 'utf8', env })
  if (status !== 0)
    throw new Error(`${args.join(' ')} exited with ${status}:\n${error ?? ''}${stderr}${stdout}`)
  return stdout
}

/** Words of a command line; double quotes hold one together. */
function wordsOf(command: string): string[] {
  return [...command.matchAll(/"([^"]*)"|\S+/g)].map(([word, quoted]) => quoted ?? word)
}
