export type { LowRank, RankChoice } from './_factorize.js'
export type { Kernels } from './_kernel-pool.js'
export type { Threshold, TopK } from './_selection.js'
export { createEvaluator, type Evaluator, type ReadRequest, type TensorCounts } from './evaluate.js'
export { evaluate, type Range } from './evaluate-tensor.js'
export {
  createManifest,
  formatManifest,
  MANIFEST_FILE,
  type Manifest,
  type ManifestFile,
  type ManifestInput,
} from './manifest.js'
export {
  type Gram,
  measureGrams,
  measureMoments,
  measureStatistics,
  type TensorPair,
} from './measure.js'
export { type DivergenceTarget, measureDivergences } from './measure-divergences.js'
export { type LowRankTarget, measureLowRank, measureRowNorms } from './measure-low-rank.js'
export type { GramTarget } from './measure-row-grams.js'
export type { MeasureOptions, MeasureProgress } from './measure-run.js'
export { type Measured, type MeasureTargets, measureTargets } from './measure-targets.js'
export { measureThresholds } from './measure-thresholds.js'
export { createDigest, type Digest, digestFile } from './node/digest.js'
export { checkInputStates, type InputStates, inputStates } from './node/input-states.js'
export {
  describeCheckpoint,
  formatPlan,
  type PlanFile,
  parsePlan,
  reopenPlan,
  shardsOfTask,
} from './node/plan-file.js'
export { planKey } from './node/plan-key.js'
export {
  checkpointProblems,
  DEFAULT_MAX_SHARD_BYTES,
  DEFAULT_MEMORY_BYTES,
  fittingThreads,
  type Plan,
  type PlanOptions,
  planCheckpoint,
} from './plan.js'
export { formatShardResult, parseShardResult, type ShardResult } from './shard-result.js'
export { createSoloTeam, createTeam, type Team } from './team.js'
export { isPassThrough, tensorProblems } from './validate.js'
export {
  type Progress,
  type RunOptions,
  type WriteOptions,
  writeCheckpoint,
  writeRest,
  writeShards,
} from './write-checkpoint.js'
