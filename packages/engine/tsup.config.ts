import { defineConfig } from 'tsup'

// The thread's entry is a file of its own: `run-threads.ts` starts it by its place beside the rest.
export default defineConfig({
  entry: { index: 'src/index.ts', worker: 'src/node/worker.ts' },
  format: 'esm',
  noExternal: ['#platform'],
  dts: { entry: { index: 'src/index.ts', browser: 'src/browser.ts' } },
  clean: true,
  sourcemap: true,
})
