import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'
import { workspaces } from '../bootstrap/stamp.mjs'

/** One source file and the module names that it imports or re-exports, as they are written. */
export interface SourceFile {
  /** Relative to the package's folder, with slashes: `src/node/index.ts`. */
  readonly path: string
  readonly imports: readonly string[]
}

/** What the checks look at of one workspace package. */
export interface Package {
  readonly name: string
  /** Relative to the repository's root: `packages/tensor`. */
  readonly dir: string
  readonly dependencies: readonly string[]
  readonly devDependencies: readonly string[]
  /** The paths that others may import: `@polygraft/tensor-io`, `@polygraft/tensor-io/node`. */
  readonly entries: readonly string[]
  readonly files: readonly SourceFile[]
}

/** Every package and app, with the imports that stand in its `src` and `test`. Reads files; resolves nothing. */
export function scanPackages(root: string): readonly Package[] {
  return workspaces(root)
    .filter(({ dir }) => dir !== 'tools')
    .map(({ name, dir, manifest }) => ({
      name,
      dir,
      dependencies: Object.keys({
        ...manifest.dependencies,
        ...manifest.peerDependencies,
      }),
      devDependencies: Object.keys(manifest.devDependencies ?? {}),
      entries: Object.keys(manifest.exports ?? {}).map((path) => name + path.slice(1)),
      files: sourceFiles(join(root, dir)),
    }))
}

function sourceFiles(dir: string): SourceFile[] {
  return ['src', 'test']
    .filter((folder) => existsSync(join(dir, folder)))
    .flatMap((folder) =>
      readdirSync(join(dir, folder), { recursive: true, encoding: 'utf8' }).map(
        (path) => `${folder}/${path}`,
      ),
    )
    .filter((path) => /\.tsx?$/.test(path))
    .sort()
    .map((path) => {
      const { importedFiles } = ts.preProcessFile(readFileSync(join(dir, path), 'utf8'), true, true)
      return { path: path.replaceAll('\\', '/'), imports: importedFiles.map(({ fileName }) => fileName) }
    })
}
