// Looks at the packages as they are published: publint's rules, the files inside, and that plain Node and tsc can use them.
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { publint } from 'publint'
import { formatMessage } from 'publint/utils'
import { installPacked, type Packed } from './pack.js'

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

const { folder, packages } = await installPacked()
try {
  const problems = [
    ...(await Promise.all(packages.map(lint))).flat(),
    ...packages.flatMap(files),
    ...consume(),
  ]
  for (const problem of problems) console.error(problem)
  process.exitCode = problems.length > 0 ? 1 : 0
} finally {
  rmSync(folder, { recursive: true })
}

/** All of publint's messages, suggestions included. */
async function lint({ name, tarball, manifest }: Packed): Promise<string[]> {
  const bytes = new Uint8Array(readFileSync(tarball))
  const { messages } = await publint({ pack: { tarball: bytes.buffer }, strict: true })
  return messages.map((message) => `${name}: ${formatMessage(message, manifest, { color: false })}`)
}

/** A licence and a README go with every package; sources and tests do not. */
function files({ name, dir }: Packed): string[] {
  const inside = readdirSync(dir, { recursive: true, encoding: 'utf8' })
  const missing = ['LICENSE', 'README.md'].filter((file) => !inside.includes(file))
  const strays = inside.filter((file) => /(^|\/)(src|test)(\/|$)|\.test\./.test(file))
  return [
    ...missing.map((file) => `${name}: ${file} is not in its tarball`),
    ...strays.map((file) => `${name}: ${file} is in its tarball`),
  ]
}

/** Imports every entry of every package with plain Node and with tsc's strictest resolution, and starts the command. */
function consume(): string[] {
  const entries = packages.flatMap(({ name, manifest }) =>
    Object.keys(manifest.exports ?? {}).map((path) => name + path.slice(1)),
  )
  const lines = entries.map(
    (entry, i) => `import * as e${i} from '${entry}'\nconsole.log(Object.keys(e${i}).length)\n`,
  )
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
  writeFileSync(join(folder, 'consumer.ts'), lines.join(''))
  writeFileSync(join(folder, 'consumer.js'), lines.join(''))
  const strict = ['--strict', '--noEmit', '--module', 'nodenext', '--lib', 'ES2023', '--target', 'ES2022']
  const types = ['--types', 'node', '--typeRoots', join(ROOT, 'node_modules/@types')]
  return [
    ...attempt('node cannot import them', [join(folder, 'consumer.js')]),
    ...attempt('tsc cannot use their types', [
      join(ROOT, 'node_modules/typescript/lib/tsc.js'),
      ...strict,
      ...types,
      join(folder, 'consumer.ts'),
    ]),
    ...attempt('the command does not start', [
      join(folder, 'node_modules/polygraft/bin/polygraft.js'),
      '--help',
    ]),
  ]
}

function attempt(title: string, args: readonly string[]): string[] {
  try {
    execFileSync(process.execPath, args, { cwd: folder, encoding: 'utf8', stdio: 'pipe' })
    return []
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: string; stderr?: string }
    return [`${title}:\n${stdout ?? ''}${stderr ?? ''}${stdout === undefined ? error : ''}`]
  }
}
