export type { RowAlignment, TokenRuns, VocabularyRows } from './align-vocabularies.js'
export { alignVocabularies } from './align-vocabularies.js'
export type { ApplyOptions } from './apply-delta.js'
export { addDelta, applyDelta, scaleDelta } from './apply-delta.js'
export { assembleRows, gatherRows, splitRows } from './assemble-rows.js'
export type { DeltaOptions } from './create-delta.js'
export { createDelta, deltaProblems, pairProblems, vocabularyRows } from './create-delta.js'
export type { DareLinearOptions, DareTiesOptions } from './dare.js'
export { dareLinear, dareTies } from './dare.js'
export type { DeltaStep } from './delta-step.js'
export { readDeltaStep } from './delta-step.js'
export type { DiffLine, DiffReport, DiffRow, PairMoments } from './diff-report.js'
export { diffReport } from './diff-report.js'
export type { Drop } from './drop.js'
export {
  effectiveTensors,
  isTied,
  isVocabularyTensor,
  skippedTensors,
  storedExpr,
} from './effective-tensors.js'
export type { LinearOptions } from './linear.js'
export { linear } from './linear.js'
export { lambdaProblems, missingTensor, notFloat, shapeMismatch } from './problems.js'
export type { ScaledModel, TaskArithmeticOptions } from './task-arithmetic.js'
export { taskArithmetic } from './task-arithmetic.js'
export type { TiesOptions, TrimOptions, TrimTarget, TrimThreshold } from './ties.js'
export { ties, trimTargets } from './ties.js'
export type { Vocabularies, Vocabulary } from './vocabulary.js'
export { readVocabularies, readVocabulary } from './vocabulary.js'
