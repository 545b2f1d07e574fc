import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** @typedef {{ name: string, dir: string, manifest: Record<string, any> }} Workspace `dir` relative to the root */

/**
 * Every workspace package, by folder.
 * @param {string} root
 * @returns {Workspace[]}
 */
export function workspaces(root) {
  const dirs = ['packages', 'apps'].flatMap((parent) =>
    existsSync(join(root, parent)) ? readdirSync(join(root, parent)).map((name) => `${parent}/${name}`) : [],
  )
  return [...dirs, 'tools']
    .filter((dir) => existsSync(join(root, dir, 'package.json')))
    .sort()
    .map((dir) => {
      const manifest = JSON.parse(readFileSync(join(root, dir, 'package.json'), 'utf8'))
      return { name: manifest.name, dir, manifest }
    })
}

/**
 * What an installation depends on, as one digest: lockfile, manifests, platform.
 * @param {string} root
 */
export function installState(root) {
  const files = ['package.json', 'pnpm-lock.yaml', 'pnpm-workspace.yaml']
  const manifests = workspaces(root).map(({ dir }) => `${dir}/package.json`)
  return digest(root, [...files, ...manifests], `${process.platform} ${process.arch}`)
}

/**
 * What the build depends on and what it left, as one digest; `undefined` while something to be built is missing.
 * @param {string} root
 */
export function buildState(root) {
  const built = workspaces(root).filter(({ manifest }) => manifest.scripts?.build)
  const inputs = built.flatMap(({ dir }) => [
    ...walk(root, `${dir}/src`).filter((file) => !file.endsWith('.test.ts')),
    ...['package.json', 'tsup.config.ts', 'tsconfig.json'].map((name) => `${dir}/${name}`),
  ])
  const outputs = built.map(({ dir }) => walk(root, `${dir}/dist`))
  if (outputs.some((files) => files.length === 0)) return undefined
  // Size and time are enough for outputs: nobody edits them, but a partial build or a stale one must be noticed.
  const left = outputs.flat().map((file) => {
    const { size, mtimeMs } = statSync(join(root, file))
    return `${file} ${size} ${mtimeMs}`
  })
  return digest(root, ['tsconfig.base.json', 'turbo.json', 'pnpm-lock.yaml', ...inputs], left.join('\n'))
}

/**
 * @param {string} root
 * @param {string} name
 */
export function readStamp(root, name) {
  const path = stampPath(root, name)
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined
}

/**
 * @param {string} root
 * @param {string} name
 * @param {string} state
 */
export function writeStamp(root, name, state) {
  mkdirSync(dirname(stampPath(root, name)), { recursive: true })
  writeFileSync(stampPath(root, name), state)
}

// Inside node_modules, so that removing node_modules starts afresh.
const stampPath = (/** @type {string} */ root, /** @type {string} */ name) =>
  join(root, 'node_modules', '.polygraft', name)

/**
 * Digest of the files' names and contents, and of `extra`.
 * @param {string} root
 * @param {readonly string[]} files
 * @param {string} extra
 */
function digest(root, files, extra) {
  const hash = createHash('sha256').update(extra)
  for (const file of files) {
    hash.update(`\0${file}\0`)
    if (existsSync(join(root, file))) hash.update(readFileSync(join(root, file)))
  }
  return hash.digest('hex')
}

/**
 * The files below `dir`, relative to the root, sorted; none when the folder does not exist.
 * @param {string} root
 * @param {string} dir
 * @returns {string[]}
 */
function walk(root, dir) {
  if (!existsSync(join(root, dir))) return []
  return readdirSync(join(root, dir), { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => (entry.isDirectory() ? walk(root, `${dir}/${entry.name}`) : [`${dir}/${entry.name}`]))
}
