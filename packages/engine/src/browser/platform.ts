import type * as node from '../node/platform.js'

export { digestFile } from './digest.js'

/** Files have no paths in a browser, so nothing is run by threads that open them for themselves. */
export const runLocal: typeof node.runLocal = () => undefined

/** As `runLocal`. */
export const openMeasureThreads: typeof node.openMeasureThreads = () => undefined
