import { ModelError } from '@polygraft/tensor'
import type * as node from '../node/platform.js'

export { digestFile } from './digest.js'

/** Files have no paths in a browser, so nothing is run by threads that open them for themselves. */
export const runLocal: typeof node.runLocal = () => undefined

/** As `runLocal`. */
export const openMeasureThreads: typeof node.openMeasureThreads = () => undefined

/** In browsers a team is the thread that asks. @throws ModelError 'thread'. */
export const startTeam: typeof node.startTeam = async (threads) => {
  throw new ModelError({
    code: 'thread',
    message: 'Browsers compute in one thread so far',
    expected: '1 thread',
    received: `${threads.length + 1} threads`,
  })
}
