import { defineConfig } from 'tsup'

// What the `browser` condition of package.json names, on the platform that it names. Beside what tsup.config.ts has built.
export default defineConfig({
  entry: { browser: 'src/browser.ts' },
  format: 'esm',
  platform: 'browser',
  noExternal: ['#platform'],
  sourcemap: true,
})
