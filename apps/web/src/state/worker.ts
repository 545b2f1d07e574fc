import type { Problem } from '@polygraft/tensor'
import { type Remote, wrap } from 'comlink'
import type { Api, Failure } from '../worker/api.js'

let started: Remote<Api> | undefined

/** What reads and computes; it and all it imports load with the first call. */
export function worker(): Remote<Api> {
  started ??= wrap<Api>(new Worker(new URL('../worker/main.ts', import.meta.url), { type: 'module' }))
  return started
}

/** What a call of the worker threw, as problems to show. */
export function problemsOf(error: unknown): readonly Problem[] {
  if (typeof error === 'object' && error !== null && 'problems' in error) return (error as Failure).problems
  const message = error instanceof Error ? error.message : String(error)
  return [{ code: 'unexpected', message }]
}
