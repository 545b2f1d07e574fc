export { FOLD_GUARD, graft } from './graft.js'
export { graftProblems } from './graft-problems.js'
export type { GraftOptions, GraftSettings, PairSource, SharedExpert, StoredSource } from './options.js'
