export { cacheBytes, scoreBytes } from './_attention.js'
export { PANEL_DTYPES } from './_decoder-operations.js'
export type { PanelDType } from './_matmul-codegen.js'
export { countNonFinite } from './_non-finite.js'
export { PRODUCT_FORMS, probabilityStride, SQUARES_BLOCK } from './_training-operations.js'
export { ACTIVATIONS, type ActivationName } from './_vector-codegen.js'
export { createKernelMemory, growKernelMemory, type KernelMemory, simdAvailable } from './_wasm-run.js'
export { referenceActivation } from './activation.js'
export { addCounts, createCounts, type OutputSums } from './counts.js'
export {
  type DigitCounter,
  type Digits,
  digitCount,
  digitCounter,
  findNth,
  finiteBins,
  magnitudeOf,
} from './digits.js'
export { decode, encode, type FloatArray } from './float-formats.js'
export { addGram, createGram, type GramProducts, MAX_GRAM } from './gram.js'
export {
  buildKernel,
  checkRun,
  type GraftCounts,
  type Kernel,
  type KernelCounts,
  type KernelExpr,
  type KernelNode,
  type KernelOutput,
  kernelKey,
  type NonFinite,
  type OutputCounts,
  sumCounts,
  type TileKernel,
} from './kernel.js'
export { randomMask } from './mask.js'
export {
  createMatmul,
  K_BLOCK,
  MATMUL_SCRATCH_BYTES,
  type Matmul,
  type PackedProduct,
  type Product,
} from './matmul.js'
export { referenceProduct } from './matmul-reference.js'
export { addMoments, createMoments, type PairMoments } from './moments.js'
export { packedBytes, packPanels, unpackRow } from './panels.js'
export {
  createProcessor,
  encodeInstruction,
  type Operands,
  type OperationName,
  PROCESSOR_SCRATCH_BYTES,
  type Processor,
} from './program.js'
export { type Distribution, randomValues } from './random.js'
export {
  MAX_COMMON,
  type RankWindow,
  rankWindow,
  type WindowCounter,
  type WindowCounts,
  windowCounter,
} from './rank-window.js'
export type { RankScratch } from './ranks.js'
export { createRankScratch, rankMagnitudes } from './ranks.js'
export {
  BLOCK_ELEMENTS,
  type BlockReducer,
  gramReducer,
  type Implementation,
  pairReducer,
  statisticsReducer,
} from './reduce.js'
export { referenceKernel } from './reference.js'
export { type RowDivergences, rowDivergences } from './row-divergences.js'
export { columnGrams, type RowGrams, rowGrams } from './row-grams.js'
export { scalarKernel } from './scalar.js'
export { compileKernel, simdKernel } from './simd.js'
export { addStatistics, createStatistics, type Statistics } from './statistics.js'
export { orthonormalize, type Svd, svd } from './svd.js'
export { createTrainingLoops, TRAINING_SCRATCH_BYTES } from './training.js'
export type { AdamWScalars, TrainingLoops } from './training-loops.js'
export { referenceTrainingLoops } from './training-reference.js'
export { createVectors, VECTOR_SCRATCH_BYTES, type Vectors } from './vectors.js'
