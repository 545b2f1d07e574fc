import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { workspaces } from '../bootstrap/stamp.mjs'
import { linkExternal } from './link-external.js'

/**
 * Lays the built packages out as an installation from a registry would, so that what they import of each other is built
 * too, in threads as well. Replaces what is there.
 * @returns the `node_modules` that holds them
 */
export function stagePublished(root: string): string {
  const folder = join(root, 'node_modules', '.polygraft', 'published', 'node_modules')
  rmSync(folder, { recursive: true, force: true })
  for (const { name, dir, manifest } of workspaces(root)) {
    if (!manifest.publishConfig?.exports) continue
    mkdirSync(join(folder, name), { recursive: true })
    cpSync(join(root, dir, 'dist'), join(folder, name, 'dist'), { recursive: true })
    const published = { ...manifest, ...manifest.publishConfig }
    writeFileSync(join(folder, name, 'package.json'), JSON.stringify(published))
  }
  linkExternal(root, folder)
  return folder
}
