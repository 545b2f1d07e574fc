import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Plugin } from 'vite'

/**
 * The tiny trained checkpoints as files of the site, `trio/base/config.json` and so on, and `trio/files.json`, which lists them by
 * checkpoint: a page cannot list a folder.
 */
export function trio(folder: string): Plugin {
  return {
    name: 'polygraft-trio',
    generateBundle() {
      const names = readdirSync(folder)
      const files = Object.fromEntries(names.map((name) => [name, readdirSync(join(folder, name)).sort()]))
      this.emitFile({ type: 'asset', fileName: 'trio/files.json', source: JSON.stringify(files) })
      for (const [name, inside] of Object.entries(files))
        for (const file of inside)
          this.emitFile({
            type: 'asset',
            fileName: `trio/${name}/${file}`,
            source: readFileSync(join(folder, name, file)),
          })
    },
  }
}
