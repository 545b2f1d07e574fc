import { parentPort, type Worker } from 'node:worker_threads'
import { CONTROL_BYTES, createRendezvous } from '../_rendezvous.js'
import { errorOf, type Failure } from './messages.js'
import { startThread } from './start-thread.js'
import type { TeamInput } from './team-thread.js'

/** The threads that compute, as the one that watches over them starts them. */
export interface TeamWatchInput {
  readonly role: 'team-watch'
  readonly threads: readonly TeamInput[]
}

/**
 * Starts a team's threads and says when all are ready. The leader sleeps while it waits, and hears of no thread that ends: so this one does,
 * and lets those who wait throw.
 */
export async function watchTeam({ threads }: TeamWatchInput, fail: (error: unknown) => void): Promise<void> {
  const { memory, control, parts } = threads[0]!
  const together = createRendezvous(new Int32Array(memory.buffer, control, CONTROL_BYTES / 4), parts)
  try {
    await Promise.all(
      threads.map((input) => {
        const thread = startThread(input)
        thread.once('exit', together.fail)
        return readyThread(thread)
      }),
    )
    parentPort!.postMessage({ kind: 'ready' })
  } catch (error) {
    fail(error)
  }
}

/** Resolves when a thread says that it is ready; rejects with what it fails with before. */
export function readyThread(thread: Worker): Promise<void> {
  return new Promise((resolve, reject) => {
    thread.once('message', ({ kind, failure }: { kind: string; failure: Failure }) =>
      kind === 'ready' ? resolve() : reject(errorOf(failure)),
    )
    thread.once('error', reject)
    thread.once('exit', (code) => reject(new Error(`it ended with code ${code}`)))
  })
}
