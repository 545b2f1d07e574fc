import { cp } from 'node:fs/promises'
import { defineConfig } from 'tsup'

// The workspace's packages go into the one file, so that a start reads one module instead of dozens.
export default defineConfig({
  entry: { main: 'src/main.ts', worker: '../../packages/engine/src/node/worker.ts' },
  format: 'esm',
  noExternal: [/^@polygraft\//],
  clean: true,
  // The demo's checkpoints, its questions and the script for large models go along with the program.
  onSuccess: async () => {
    await cp('../../tools/trio/checkpoints', 'dist/trio', { recursive: true })
    await cp('../../tools/trio/data', 'dist/data', { recursive: true })
    await cp('../../tools/export-cpt', 'dist/export-cpt', { recursive: true })
  },
})
