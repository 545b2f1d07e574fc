import { mkdirSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { workspaces } from '../bootstrap/stamp.mjs'

/** Links what the workspace's packages depend on from outside, peers too, into the `node_modules` at `modules`, from where it already is. */
export function linkExternal(root: string, modules: string): void {
  const needed = workspaces(root).flatMap(({ dir, manifest }) =>
    Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies })
      .filter((name) => !name.startsWith('@polygraft/'))
      .map((name) => [name, join(root, dir, 'node_modules', name)] as const),
  )
  for (const [name, target] of new Map(needed)) {
    const link = join(modules, name)
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(target, link, 'junction')
  }
}
