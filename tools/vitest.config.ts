import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'
import { workspaces } from './bootstrap/stamp.mjs'
import { stagePublished } from './publish/stage.js'

const root = fileURLToPath(new URL('..', import.meta.url))

// POLYGRAFT_TEST=dist runs the same tests on what will be published: every `@polygraft/x` then means its built file.
const onDist = process.env.POLYGRAFT_TEST === 'dist'

export default defineConfig({
  root,
  resolve: { alias: onDist ? distAliases() : [] },
  test: {
    // The tools have no dist, and the apps' tests start the built command in either case.
    include: onDist
      ? ['packages/*/{src,test}/**/*.test.ts']
      : ['{packages,apps}/*/{src,test}/**/*.test.ts', 'tools/**/*.test.ts'],
    exclude: ['**/node_modules/**', '**/dist/**', '**/.venv*/**'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
})

/** From what `publishConfig.exports` promises; an import path that is not published resolves to nothing and fails. */
function distAliases() {
  const folder = stagePublished(root)
  const published = workspaces(root).flatMap(({ name, manifest }) =>
    Object.entries<{ default: string }>(manifest.publishConfig?.exports ?? {}).map(([path, target]) => ({
      find: new RegExp(`^${name}${path.slice(1)}$`),
      replacement: join(folder, name, target.default),
    })),
  )
  return [...published, { find: /^@polygraft\/.*$/, replacement: '$& is not in publishConfig.exports' }]
}
