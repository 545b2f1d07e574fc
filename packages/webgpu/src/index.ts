export type { TileArithmetic } from './_wgsl-floats.js'
export { createGpu, type GpuOptions } from './create-gpu.js'
export { createDecoderBackend, type DecoderBackendOptions } from './decoder/create-decoder-backend.js'
export {
  type Binding,
  defineKernel,
  divideUp,
  foldedGrid,
  type GpuKernel,
  type Grid,
  type KernelSpec,
} from './define-kernel.js'
export { dispatch } from './dispatch.js'
export type { Arithmetic, Dispatch, Gpu, GpuBuffer, GpuFeatures } from './gpu.js'
export { createTileKernel, type GpuTileKernel } from './tile-kernel.js'
export type { GpuAdapter, GpuApi, GpuDevice, GpuLimits, NativeBuffer } from './webgpu-api.js'
