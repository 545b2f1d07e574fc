export type { Kernels } from './_kernel-pool.js'
export { createEvaluator, type Evaluator, type GraftCounts, type ReadRequest } from './evaluate.js'
export { evaluate, type Range } from './evaluate-tensor.js'
export {
  createManifest,
  formatManifest,
  MANIFEST_FILE,
  type Manifest,
  type ManifestInput,
  type ManifestShard,
} from './manifest.js'
export { createPairMeter, type PairMeter } from './measure-pair.js'
export { createDigest, type Digest, digestFile } from './node/digest.js'
export {
  checkpointProblems,
  DEFAULT_MAX_SHARD_BYTES,
  DEFAULT_MEMORY_BYTES,
  type Plan,
  type PlanOptions,
  planCheckpoint,
} from './plan.js'
export { isPassThrough, tensorProblems } from './validate.js'
export { type Progress, type WriteOptions, writeCheckpoint } from './write-checkpoint.js'
