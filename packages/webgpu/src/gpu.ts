import type { GpuKernel } from './define-kernel.js'
import type { GpuDevice, NativeBuffer } from './webgpu-api.js'

/** Memory on the device, until `destroy`. Unit: bytes, a multiple of 4. */
export interface GpuBuffer {
  readonly bytes: number
  readonly native: NativeBuffer
  destroy(): void
}

/** One run of a kernel, as plain data. */
export interface Dispatch {
  readonly kernel: GpuKernel
  readonly buffers: Readonly<Record<string, GpuBuffer>>
  readonly params: Readonly<Record<string, number>>
  readonly overrides: Readonly<Record<string, number>>
}

export interface GpuFeatures {
  /** 16-bit floats in shaders. */
  readonly f16: boolean
  /** Subgroup operations, with lanes numbered along the workgroup. */
  readonly subgroups: boolean
}

/** A device and what was made on it. Not shared: who creates it destroys it. */
export interface Gpu {
  /** The adapter, as its driver calls it. */
  readonly name: string
  readonly features: GpuFeatures
  /** What its floats do, measured at the start. */
  readonly arithmetic: Arithmetic
  /** The longest buffer that is made; whoever holds more splits it. */
  readonly maxBindingBytes: number
  /** Buffers that were created and not destroyed yet, and their bytes. */
  readonly live: { readonly buffers: number; readonly bytes: number }
  readonly device: GpuDevice
  /**
   * A buffer of zeros.
   * @throws ModelError 'gpu-limit' above `maxBindingBytes`, 'device-lost'.
   */
  createBuffer(bytes: number): GpuBuffer
  /** Puts `data` at byte `offset`, a multiple of 4; what is missing from the last word is zero. */
  write(buffer: GpuBuffer, data: ArrayBufferView<ArrayBuffer>, offset?: number): void
  /**
   * Queues dispatches, one after the other: each sees what those before it wrote.
   * @throws ModelError 'gpu-limit' for a grid that is too large, 'device-lost'.
   */
  run(dispatches: readonly Dispatch[]): void
  /**
   * The bytes [begin, begin + bytes), once all that was queued has run.
   * @throws ModelError 'device-lost'; 'gpu-error' or 'out-of-memory' when anything before it was refused.
   */
  read(buffer: GpuBuffer, begin?: number, bytes?: number): Promise<Uint8Array<ArrayBuffer>>
  /** Gives back the device with everything on it. */
  destroy(): void
}

/** What a Gpu is before it is probed. */
export type UnprobedGpu = Omit<Gpu, 'arithmetic'>

/** What the floats of an adapter do beyond what WGSL promises. */
export interface Arithmetic {
  /** Additions and multiplications in F32 give the bits of IEEE 754 in all that was tried: subnormals, overflow, ties, NaN. */
  readonly exact: boolean
  /** Results or operands below 2^-126 become 0. */
  readonly flushesSubnormals: boolean
  /** a * b + c is rounded once where it should be rounded twice. */
  readonly contracts: boolean
}
