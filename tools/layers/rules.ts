import { posix } from 'node:path'
import { findCycles } from './cycles.js'
import type { Package, SourceFile } from './scan.js'
import { LAYERS, WITH_PLATFORM_FILES, WITHOUT_EXTERNAL_DEPENDENCIES } from './table.js'

const SCOPE = '@polygraft/'

/** Everything that breaks the rules, one sentence each, with the file that does. */
export function layerProblems(packages: readonly Package[]): readonly string[] {
  return [
    ...packages.flatMap(manifestProblems),
    ...packages.flatMap((pkg) => pkg.files.flatMap((file) => importProblems(pkg, file, packages))),
    ...packageCycles(packages),
    ...packages.flatMap(fileCycles),
  ]
}

/** `tensor` for `@polygraft/tensor`; `undefined` for whatever is not one of the layered packages. */
export const shortName = (name: string) => (name.startsWith(SCOPE) ? name.slice(SCOPE.length) : undefined)

function manifestProblems(pkg: Package): string[] {
  const short = shortName(pkg.name)
  if (short === undefined) return []
  if (LAYERS[short] === undefined) return [`${pkg.dir}: ${pkg.name} has no layer in tools/layers/table.ts`]
  const external = pkg.dependencies.filter((name) => shortName(name) === undefined)
  const upward = pkg.dependencies.filter((name) => !isBelow(name, short))
  return [
    ...(WITHOUT_EXTERNAL_DEPENDENCIES.includes(short) ? external : []).map(
      (name) => `${pkg.dir}/package.json: ${pkg.name} must bring no dependency from outside, but has ${name}`,
    ),
    ...upward.map(
      (name) =>
        `${pkg.dir}/package.json: ${pkg.name} (layer ${LAYERS[short]}) depends on ${name}, not below it`,
    ),
  ]
}

/** True for packages from outside too: they have no layer. */
function isBelow(name: string, short: string) {
  const dependency = shortName(name)
  return dependency === undefined || (LAYERS[dependency] ?? Infinity) < LAYERS[short]!
}

function importProblems(pkg: Package, file: SourceFile, packages: readonly Package[]): string[] {
  const isTest = file.path.endsWith('.test.ts') || file.path.startsWith('test/')
  return file.imports.flatMap((name) => {
    const problem = name.startsWith('.')
      ? relativeProblem(pkg, file, name, isTest)
      : name.startsWith('node:')
        ? platformProblem(pkg, file, isTest)
        : packageProblem(pkg, name, packages, isTest)
    return problem === undefined ? [] : [`${pkg.dir}/${file.path}: imports '${name}': ${problem}`]
  })
}

function relativeProblem(pkg: Package, file: SourceFile, name: string, isTest: boolean) {
  const target = resolve(file, name)
  if (target.startsWith('..')) return 'leaves its package'
  if (!/\.(js|json|css)$/.test(name)) return 'relative imports end in .js'
  if (name.endsWith('.css')) return undefined
  const isThere = pkg.files.some(({ path }) => path === target || path === `${target}x`)
  if (!isThere && !name.endsWith('.json')) return 'no such file'
  if (!isTest && posix.basename(target) === 'index.ts') return 'a package does not import its own index.ts'
  return undefined
}

function platformProblem(pkg: Package, file: SourceFile, isTest: boolean) {
  const short = shortName(pkg.name)
  if (isTest || short === undefined) return undefined
  if (WITH_PLATFORM_FILES.includes(short) && file.path.startsWith('src/node/')) return undefined
  return `only ${WITH_PLATFORM_FILES.join(', ')} touch the platform, in src/node/`
}

function packageProblem(pkg: Package, name: string, packages: readonly Package[], isTest: boolean) {
  const own = name
    .split('/')
    .slice(0, name.startsWith('@') ? 2 : 1)
    .join('/')
  if (own === pkg.name) return isTest ? undefined : 'a package does not import itself by name'
  if (shortName(own) === undefined) return undefined // from outside: knip checks that these are declared
  // An app is bundled, so what it imports need not be installed with it.
  const bundled = shortName(pkg.name) === undefined
  const declared = [...pkg.dependencies, ...(isTest || bundled ? pkg.devDependencies : [])]
  if (!declared.includes(own)) return `${own} is not among its dependencies in package.json`
  const entries = packages.find((other) => other.name === own)?.entries ?? []
  if (!entries.includes(name)) return `${own} exports ${entries.join(', ') || 'nothing'}`
  return undefined
}

function packageCycles(packages: readonly Package[]): string[] {
  const graph = new Map(packages.map((pkg) => [pkg.name, [...pkg.dependencies, ...pkg.devDependencies]]))
  return findCycles(graph).map((cycle) => `packages depend on each other: ${cycle.join(' -> ')}`)
}

function fileCycles(pkg: Package): string[] {
  const edges = (file: SourceFile) =>
    file.imports.filter((name) => name.startsWith('.')).map((name) => resolve(file, name))
  const graph = new Map(pkg.files.map((file) => [file.path, edges(file)]))
  return findCycles(graph).map((cycle) => `${pkg.dir}: files import each other: ${cycle.join(' -> ')}`)
}

/** The source file that a relative import names, relative to the package's folder. */
const resolve = (file: SourceFile, name: string) =>
  posix.join(posix.dirname(file.path), name).replace(/\.js$/, '.ts')
