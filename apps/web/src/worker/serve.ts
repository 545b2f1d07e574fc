import { ModelError } from '@polygraft/tensor'
import { expose } from 'comlink'
import type { Failure } from './api.js'

/** Offers the page what a worker does. Its methods throw a `Failure` in place of an error. */
export function serve(api: object): void {
  const guarded = Object.entries(api).map(([name, method]) => [
    name,
    async (...args: never[]) => {
      try {
        return await (method as (...args: never[]) => unknown)(...args)
      } catch (error) {
        throw failure(error)
      }
    },
  ])
  expose(Object.fromEntries(guarded))
}

function failure(error: unknown): Failure {
  if (error instanceof ModelError) return { problems: error.problems }
  const received = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  return {
    problems: [{ code: 'unexpected', message: 'Something went wrong that was not foreseen', received }],
  }
}
