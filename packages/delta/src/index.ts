export type { RowAlignment, TokenRuns, VocabularyRows } from './align-vocabularies.js'
export { alignVocabularies } from './align-vocabularies.js'
export type { AdapterOptions } from './apply-adapter.js'
export { adapterProblems, adapterWarnings, applyAdapter, doraTargets } from './apply-adapter.js'
export type { ApplyOptions } from './apply-delta.js'
export { addDelta, applyDelta, scaleDelta } from './apply-delta.js'
export { assembleRows, gatherRows, runsOf, splitRows } from './assemble-rows.js'
export type { BreadcrumbsModel, BreadcrumbsOptions, BreadcrumbsTiesOptions } from './breadcrumbs.js'
export { breadcrumbs, breadcrumbsTargets, breadcrumbsTies, breadcrumbsTiesTargets } from './breadcrumbs.js'
export type { Consensus, WeightedModel } from './combine.js'
export type { DeltaOptions } from './create-delta.js'
export { createDelta, deltaProblems, pairProblems, vocabularyRows } from './create-delta.js'
export type { DareLinearOptions, DareTiesOptions } from './dare.js'
export { dareLinear, dareLinearTargets, dareTies, dareTiesTargets } from './dare.js'
export type { DeltaStep } from './delta-step.js'
export { readDeltaStep } from './delta-step.js'
export type { DiffLine, DiffReport, DiffRow, PairMoments } from './diff-report.js'
export { diffReport } from './diff-report.js'
export {
  effectiveTensors,
  isTied,
  isVocabularyTensor,
  skippedTensors,
  storedExpr,
} from './effective-tensors.js'
export type { KarcherOptions } from './karcher.js'
export { karcher, karcherTargets } from './karcher.js'
export type { LinearOptions } from './linear.js'
export { linear } from './linear.js'
export type { LoraConfig, ModuleChoice } from './lora-config.js'
export { isTarget, parseLoraConfig, scalingOf } from './lora-config.js'
export type {
  Gram,
  GramTarget,
  Measures,
  MergeTargets,
  TrimTarget,
  TrimThreshold,
  VectorStatistics,
} from './measures.js'
export { countTargets, measureMerge, NO_MEASURES } from './measures.js'
export type { AnyMergeOptions, AnyModel, MergeMethod, ParameterRule } from './merge-methods.js'
export { MERGE_METHODS } from './merge-methods.js'
export type { ModelStockOptions } from './model-stock.js'
export { modelStock, modelStockTargets } from './model-stock.js'
export type { MultislerpOptions } from './multislerp.js'
export { multislerp, multislerpTargets } from './multislerp.js'
export type { NearswapOptions } from './nearswap.js'
export { nearswap } from './nearswap.js'
export type { NuslerpOptions, SphericalOptions } from './nuslerp.js'
export { nuslerp, nuslerpTargets } from './nuslerp.js'
export type { PassthroughOptions } from './passthrough.js'
export { passthrough } from './passthrough.js'
export type { PerTensor } from './per-tensor.js'
export { lambdaProblems, missingTensor, notFloat, shapeMismatch } from './problems.js'
export type { RamOptions, RamPlusOptions } from './ram.js'
export { ram, ramPlus, ramPlusTargets } from './ram.js'
export type { Adapter } from './read-adapter.js'
export { ADAPTER_CONFIG_FILE, readAdapter } from './read-adapter.js'
export type { SceOptions } from './sce.js'
export { sce, sceTargets } from './sce.js'
export type { SlerpOptions } from './slerp.js'
export { slerp, slerpTargets } from './slerp.js'
export type { Grain } from './span.js'
export type { Drop, Rescale } from './sparsify.js'
export type { TaskVectorOptions } from './task-arithmetic.js'
export { taskArithmetic } from './task-arithmetic.js'
export type { SparseModel, TiesOptions } from './ties.js'
export { ties, tiesTargets } from './ties.js'
export { isTemplateFile, isTokenizerFile } from './tokenizer-files.js'
export type { Vocabularies, Vocabulary } from './vocabulary.js'
export { readVocabularies, readVocabulary } from './vocabulary.js'
