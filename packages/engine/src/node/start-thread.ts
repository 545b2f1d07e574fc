import { Worker } from 'node:worker_threads'
import type { Source, SourceId } from '@polygraft/tensor'

type Sources = ReadonlyMap<SourceId, Source>

/** A thread that runs `worker.ts` with `input`, which is cloned. */
export function startThread(input: object): Worker {
  if (!import.meta.url.endsWith('.ts'))
    return new Worker(new URL('./worker.js', import.meta.url), { workerData: input })
  // In a working copy the thread is TypeScript, which Node 20 runs only after tsx has registered itself there.
  const entry = JSON.stringify(new URL('./worker.ts', import.meta.url).href)
  const start = `import('tsx/esm/api').then(({ register }) => (register(), import(${entry})))`
  return new Worker(start, { workerData: input, eval: true })
}

/** Whether all of `sources` are local files, which threads open for themselves. */
export function areLocal(sources: Sources): boolean {
  return [...sources.values()].every(({ shards }) =>
    [...shards.values()].every(({ path }) => path !== undefined),
  )
}

/** Sources as data that threads can be given: byte sources by their paths alone. */
export function cloneableSources(sources: Sources): Sources {
  const plain = [...sources].map(([id, source]): [string, Source] => {
    const shards = [...source.shards].map(([name, { path, size }]) => [name, { path, size }] as const)
    // Only `path` is used there; the rest of a ByteSource is functions, which cannot be cloned.
    return [id, { ...source, shards: new Map(shards) as unknown as Source['shards'] }]
  })
  return new Map(plain)
}
