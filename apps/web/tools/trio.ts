import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Plugin } from 'vite'

const LANGUAGES = ['a', 'b', 'c', 'd']

/**
 * The tiny trained checkpoints as files of the site, `trio/base/config.json` and so on, and `trio/files.json`, which lists them by
 * checkpoint: a page cannot list a folder. Held-out text of each language lies beside them, `trio/raw-a.txt` and so on.
 */
export function trio(root: string): Plugin {
  const folder = join(root, 'checkpoints')
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
      for (const file of LANGUAGES.map((language) => `raw-${language}.txt`))
        this.emitFile({
          type: 'asset',
          fileName: `trio/${file}`,
          source: readFileSync(join(root, 'data', file)),
        })
    },
  }
}
