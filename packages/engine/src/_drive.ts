import { ModelError } from '@polygraft/tensor'
import type { ReadRequest } from './evaluate.js'

/** Runs `work` to its end, awaiting each read that it asks for; what it returns. */
export async function drive<T>(work: Generator<ReadRequest, T, void>, signal?: AbortSignal): Promise<T> {
  for (;;) {
    const step = work.next()
    if (step.done) return step.value
    signal?.throwIfAborted()
    await readInto(step.value)
  }
}

/**
 * Fills a request.
 * @throws ModelError 'truncated'.
 */
export async function readInto({ file, bytes, begin, out }: ReadRequest): Promise<void> {
  const got = new Uint8Array(await bytes.slice(begin, begin + out.length).arrayBuffer())
  if (got.length !== out.length)
    throw new ModelError({
      code: 'truncated',
      message: 'The file ended while it was read',
      file,
      expected: `${out.length} bytes at ${begin}`,
      received: `${got.length} bytes`,
      next: 'Another program may be changing the file. Fetch or copy it again.',
    })
  out.set(got)
}
