export { decode, encode, type FloatArray } from './float-formats.js'
export {
  buildKernel,
  type GraftCounts,
  type Kernel,
  type KernelCounts,
  type KernelExpr,
  type KernelNode,
  type KernelOutput,
  kernelKey,
  type TileKernel,
} from './kernel.js'
export { createMoments, type PairMoments, pairMoments } from './moments.js'
export { type Distribution, randomValues } from './random.js'
export { referenceKernel } from './reference.js'
export { compileKernel, simdAvailable, simdKernel } from './simd.js'
