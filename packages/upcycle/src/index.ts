export { dropTargets } from './drop-targets.js'
export type { ExpertInit, RedrawnStatistics, UpcycleOptions } from './options.js'
export { upcycle } from './upcycle.js'
export { upcycleProblems, upcycleWarnings } from './upcycle-problems.js'
