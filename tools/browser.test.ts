import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { describe, expect, it } from 'vitest'
import { workspaces } from './bootstrap/stamp.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const packages = workspaces(root).filter(({ dir }) => dir.startsWith('packages/'))

describe('packages in browsers', () => {
  it.each(packages.map(({ name, dir }) => [name, dir]))('%s asks for nothing of Node', async (name, dir) => {
    // What esbuild cannot find on the platform `browser`, every module of Node, is an error.
    const bundled = build({
      stdin: { contents: `export * from '${name}'`, resolveDir: join(root, 'tools') },
      bundle: true,
      write: false,
      format: 'esm',
      platform: 'browser',
      logLevel: 'silent',
      metafile: true,
    })
    const { outputs, inputs } = (await bundled).metafile
    expect(Object.values(outputs).flatMap(({ imports }) => imports)).toEqual([])
    expect(Object.keys(inputs).filter((path) => path.includes(`${dir}/src/node/`))).toEqual([])
  })
})
