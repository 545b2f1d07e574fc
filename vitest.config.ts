import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const root = fileURLToPath(new URL('.', import.meta.url))

// POLYGRAFT_TEST=dist runs the same tests on what will be published: every `@polygraft/x` then means its built file.
const onDist = process.env.POLYGRAFT_TEST === 'dist'
const alias = onDist
  ? readdirSync(`${root}packages`).map((name) => ({
      find: `@polygraft/${name}`,
      replacement: `${root}packages/${name}/dist/index.js`,
    }))
  : []

export default defineConfig({
  resolve: { alias },
  test: {
    include: ['{packages,apps}/*/{src,test}/**/*.test.ts', 'tools/**/*.test.ts'],
    exclude: ['**/node_modules/**', '**/dist/**'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
})
