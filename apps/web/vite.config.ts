import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vite'
import { offline } from './tools/offline.js'
import { trio } from './tools/trio.js'

export default defineConfig({
  root: fileURLToPath(new URL('.', import.meta.url)),
  base: './',
  // What is not there is not there: openUrl asks for files that a checkpoint may lack.
  appType: 'mpa',
  build: {
    target: 'es2022',
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 600,
    assetsInlineLimit: 0,
  },
  worker: { format: 'es' },
  plugins: [trio(fileURLToPath(new URL('../../tools/trio', import.meta.url))), offline()],
})
