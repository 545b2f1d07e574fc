import { createHash } from 'node:crypto'
import type { Plugin } from 'vite'

/**
 * Writes `sw.js`, a service worker that keeps every file of this build and answers from there. Its name for the build is a digest
 * of the files, so that another build is another cache.
 */
export function offline(): Plugin {
  return {
    name: 'polygraft-offline',
    enforce: 'post',
    generateBundle(_, bundle) {
      const digest = createHash('sha256')
      for (const [name, file] of Object.entries(bundle).sort(([a], [b]) => (a < b ? -1 : 1)))
        digest.update(name).update(file.type === 'chunk' ? file.code : file.source)
      const files = ['./', ...Object.keys(bundle).filter((name) => name !== 'index.html'), 'icon.svg']
      const source = workerOf(digest.digest('hex').slice(0, 16), files)
      this.emitFile({ type: 'asset', fileName: 'sw.js', source })
    },
  }
}

function workerOf(build: string, files: readonly string[]): string {
  return `const CACHE = 'polygraft-${build}'
const FILES = ${JSON.stringify(files)}
self.addEventListener('install', (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)).then(() => self.skipWaiting()))
})
self.addEventListener('activate', (event) => {
  const old = (names) => names.filter((name) => name.startsWith('polygraft-') && name !== CACHE)
  const tidy = caches.keys().then((names) => Promise.all(old(names).map((name) => caches.delete(name))))
  event.waitUntil(tidy.then(() => self.clients.claim()))
})
// Only what this site is made of; checkpoints that somebody opens by URL go to the network.
self.addEventListener('fetch', (event) => {
  const url = new URL(event.request.url)
  const inside = url.origin === location.origin && event.request.method === 'GET' && !event.request.headers.has('range')
  if (!inside) return
  event.respondWith(caches.open(CACHE).then((cache) => cache.match(event.request, { ignoreSearch: true, ignoreVary: true })).then((hit) => hit ?? fetch(event.request)))
})
`
}
