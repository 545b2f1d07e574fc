/*
 * The part of WebGPU that is used here, so that neither this package nor its users need the DOM's types. Both the browser's
 * `navigator.gpu` and Dawn's in Node are such a `GpuApi`.
 */

export interface GpuApi {
  requestAdapter(options?: { powerPreference?: 'low-power' | 'high-performance' }): Promise<GpuAdapter | null>
}

export interface GpuAdapter {
  readonly features: { has(name: string): boolean }
  readonly info: {
    readonly vendor: string
    readonly architecture: string
    readonly device: string
    readonly description: string
  }
  readonly limits: GpuLimits
  // biome-ignore lint/suspicious/noExplicitAny: the browser's descriptor has narrower types than plain strings.
  requestDevice(descriptor?: any): Promise<GpuDevice>
}

export interface GpuLimits {
  readonly maxBufferSize: number
  readonly maxStorageBufferBindingSize: number
  readonly maxStorageBuffersPerShaderStage: number
  readonly maxComputeWorkgroupStorageSize: number
  readonly maxComputeInvocationsPerWorkgroup: number
  readonly maxComputeWorkgroupsPerDimension: number
  readonly minUniformBufferOffsetAlignment: number
}

export interface GpuDevice {
  readonly limits: GpuLimits
  readonly lost: Promise<{ readonly reason: string; readonly message: string }>
  readonly queue: {
    submit(commands: readonly object[]): void
    // biome-ignore lint/suspicious/noExplicitAny: a native handle.
    writeBuffer(buffer: any, offset: number, data: ArrayBufferView<ArrayBuffer>): void
    onSubmittedWorkDone(): Promise<unknown>
  }
  // biome-ignore lint/suspicious/noExplicitAny: events differ between the DOM and Dawn in all but these fields.
  addEventListener(type: 'uncapturederror', listener: (event: any) => void): void
  pushErrorScope(filter: 'validation' | 'out-of-memory'): void
  popErrorScope(): Promise<{ readonly message: string } | null>
  createBuffer(descriptor: { label?: string; size: number; usage: number }): NativeBuffer
  createShaderModule(descriptor: { label?: string; code: string }): object
  // biome-ignore lint/suspicious/noExplicitAny: native handles go in, and come out as they are.
  createBindGroupLayout(descriptor: any): object
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  createPipelineLayout(descriptor: any): object
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  createComputePipeline(descriptor: any): object
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  createBindGroup(descriptor: any): object
  createCommandEncoder(): CommandEncoder
  destroy(): void
}

export interface NativeBuffer {
  readonly size: number
  mapAsync(mode: number): Promise<unknown>
  getMappedRange(): ArrayBuffer
  unmap(): void
  destroy(): void
}

interface CommandEncoder {
  beginComputePass(): ComputePass
  // biome-ignore lint/suspicious/noExplicitAny: native handles.
  copyBufferToBuffer(from: any, fromOffset: number, to: any, toOffset: number, size: number): void
  finish(): object
}

interface ComputePass {
  // biome-ignore lint/suspicious/noExplicitAny: a native handle.
  setPipeline(pipeline: any): void
  // biome-ignore lint/suspicious/noExplicitAny: a native handle.
  setBindGroup(index: number, group: any): void
  dispatchWorkgroups(x: number, y: number, z: number): void
  end(): void
}
