export type { ExpertInit, UpcycleOptions } from './options.js'
export { upcycle } from './upcycle.js'
export { upcycleProblems, upcycleWarnings } from './upcycle-problems.js'
