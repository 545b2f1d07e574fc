export { digestFile } from './digest.js'
export { openMeasureThreads } from './measure-threads.js'
export { runLocal } from './run-local.js'
export { startTeam } from './start-team.js'
