import { defineConfig } from 'tsup'

// The workspace's packages go into the one file, so that a start reads one module instead of dozens.
export default defineConfig({
  entry: { main: 'src/main.ts', worker: '../../packages/engine/src/node/worker.ts' },
  format: 'esm',
  noExternal: [/^@polygraft\//],
  clean: true,
})
