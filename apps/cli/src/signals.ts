import { ModelError } from '@polygraft/tensor'

/** What asks a program to stop: Ctrl-C, `kill`, a closed terminal. */
export const STOP_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** Runs `work`; Ctrl-C and its like abort the signal instead of the process, so that `work` can tidy up behind itself. */
export async function untilCancelled<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const cancel = new AbortController()
  // Every time, not once: npx and npm pass on a Ctrl-C that the terminal has sent here already.
  const stop = () => cancel.abort(new ModelError({ code: 'cancelled', message: 'Cancelled' }))
  for (const name of STOP_SIGNALS) process.on(name, stop)
  try {
    return await work(cancel.signal)
  } finally {
    for (const name of STOP_SIGNALS) process.off(name, stop)
  }
}
