import { ModelError } from '@polygraft/tensor'
import { deviceError, deviceLost, overLimit } from './_errors.js'
import { createPipelines } from './_pipelines.js'
import type { Gpu, GpuBuffer, UnprobedGpu } from './gpu.js'
import { probeArithmetic } from './probe-arithmetic.js'
import type { GpuAdapter, GpuApi, GpuDevice } from './webgpu-api.js'

export interface GpuOptions {
  /** The browser's `navigator.gpu` when it is not given; in Node take `openDawn` of `@polygraft/webgpu/node`. */
  readonly gpu?: GpuApi
  readonly powerPreference?: 'low-power' | 'high-performance'
  /** Longest buffer; 128 MiB, which every device must have, when it is not given. */
  readonly maxBindingBytes?: number
}

const DEFAULT_BINDING_BYTES = 2 ** 27
const USAGE = { mapRead: 1, copySrc: 4, copyDst: 8, storage: 128 } as const
const MAP_READ = 1

/**
 * A device of its own, on an adapter that really computes.
 * @throws ModelError 'no-webgpu' without WebGPU, 'no-adapter' without a GPU, 'null-adapter' where its results are wrong.
 */
export async function createGpu(options: GpuOptions = {}): Promise<Gpu> {
  const { api, adapter, device, maxBindingBytes } = await requestDevice(options)
  const started = gpuOf(adapter, device, maxBindingBytes)
  try {
    const { arithmetic, computes, linearSubgroups } = await probeArithmetic(started)
    if (!computes) throw nullAdapter(started.name)
    const features = { ...started.features, subgroups: started.features.subgroups && linearSubgroups }
    return Object.defineProperties(started, {
      arithmetic: { value: arithmetic },
      features: { value: features },
      // Dawn's devices crash the process once their instance is collected.
      api: { value: api },
    }) as Gpu
  } catch (error) {
    started.destroy()
    throw error
  }
}

async function requestDevice({ gpu, powerPreference, maxBindingBytes }: GpuOptions) {
  const api = gpu ?? (globalThis as { navigator?: { gpu?: GpuApi } }).navigator?.gpu
  if (!api)
    throw new ModelError({
      code: 'no-webgpu',
      message: 'There is no WebGPU here',
      next: 'In Node give createGpu({ gpu: await openDawn() }); in a browser take a recent one, over https or on localhost.',
    })
  // An adapter makes one device, so a new one is asked for each time.
  const adapter = await api.requestAdapter({ powerPreference: powerPreference ?? 'high-performance' })
  if (!adapter)
    throw new ModelError({
      code: 'no-adapter',
      message: 'WebGPU finds no GPU',
      next: 'Install its Vulkan driver; without a GPU, SwiftShader or lavapipe compute on the CPU.',
    })
  const { maxStorageBufferBindingSize, maxBufferSize } = adapter.limits
  const most = Math.min(maxBindingBytes ?? DEFAULT_BINDING_BYTES, maxStorageBufferBindingSize, maxBufferSize)
  const device = await adapter.requestDevice({
    requiredFeatures: ['shader-f16', 'subgroups'].filter((feature) => adapter.features.has(feature)),
    requiredLimits: {
      maxStorageBufferBindingSize: Math.max(most, DEFAULT_BINDING_BYTES),
      maxBufferSize: Math.max(most, DEFAULT_BINDING_BYTES),
    },
  })
  return { api, adapter, device, maxBindingBytes: most - (most % 4) }
}

/** The adapter's results are not those of arithmetic: Dawn's null backend, or a driver that is broken. */
function nullAdapter(name: string): ModelError {
  return new ModelError({
    code: 'null-adapter',
    message: 'The GPU adapter computes nothing, or not what it is told',
    received: name,
    next: 'Choose another adapter or driver; Dawn does this with its null backend.',
  })
}

function gpuOf(adapter: GpuAdapter, device: GpuDevice, maxBindingBytes: number): UnprobedGpu {
  const live = { buffers: 0, bytes: 0 }
  const errors = watchErrors(device)
  const pipelines = createPipelines(device)

  function createNative(bytes: number, usage: number): GpuBuffer {
    errors.check()
    if (bytes > maxBindingBytes)
      throw overLimit('A buffer exceeds what the GPU binds', maxBindingBytes, bytes)
    const size = Math.max(4, Math.ceil(bytes / 4) * 4)
    const native = errors.scoped('out-of-memory', () => device.createBuffer({ size, usage }))
    live.buffers++
    live.bytes += size
    let destroyed = false
    return {
      bytes: size,
      native,
      destroy() {
        if (destroyed) return
        destroyed = true
        native.destroy()
        live.buffers--
        live.bytes -= size
      },
    }
  }

  return {
    name: nameOf(adapter),
    features: { f16: adapter.features.has('shader-f16'), subgroups: adapter.features.has('subgroups') },
    maxBindingBytes,
    live,
    device,
    createBuffer: (bytes) => createNative(bytes, USAGE.storage | USAGE.copySrc | USAGE.copyDst),
    write(buffer, data, offset = 0) {
      errors.check()
      device.queue.writeBuffer(buffer.native, offset, wholeWords(data))
    },
    run(dispatches) {
      errors.check()
      if (dispatches.length > 0) errors.scoped('validation', () => pipelines.submit(dispatches))
    },
    async read(buffer, begin = 0, bytes = buffer.bytes - begin) {
      const size = Math.ceil(bytes / 4) * 4
      if (size === 0) return new Uint8Array(0)
      const staging = createNative(size, USAGE.mapRead | USAGE.copyDst)
      try {
        const encoder = device.createCommandEncoder()
        encoder.copyBufferToBuffer(buffer.native, begin, staging.native, 0, size)
        device.queue.submit([encoder.finish()])
        await staging.native.mapAsync(MAP_READ).catch((error) => errors.explain(error))
        await errors.settled()
        return new Uint8Array(staging.native.getMappedRange().slice(0, bytes))
      } finally {
        staging.destroy()
      }
    },
    destroy() {
      errors.end()
      pipelines.destroy()
      device.destroy()
    },
  }
}

function nameOf({ info }: GpuAdapter): string {
  return (
    [info.vendor, info.architecture, info.description || info.device].filter(Boolean).join(' ') || 'unnamed'
  )
}

function wholeWords(data: ArrayBufferView<ArrayBuffer>): ArrayBufferView<ArrayBuffer> {
  if (data.byteLength % 4 === 0) return data
  const padded = new Uint8Array(Math.ceil(data.byteLength / 4) * 4)
  padded.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
  return padded
}

/** Remembers the first error that the device reports, and throws it at whoever uses the device next. */
function watchErrors(device: GpuDevice) {
  let failure: ModelError | undefined
  let pending: Promise<unknown> = Promise.resolve()
  const note = (error: Parameters<typeof deviceError>[0] | null) => {
    if (error) failure ??= deviceError(error)
  }
  device.lost.then(({ reason, message }) => {
    failure = deviceLost(reason, message)
  })
  device.addEventListener('uncapturederror', (event) => note(event.error))
  const check = () => {
    if (failure) throw failure
  }
  return {
    check,
    /** The device is being destroyed here: whoever uses it from now on hears so. */
    end() {
      failure ??= deviceLost('destroyed', '')
    },
    /** Runs `make`; what the device says against it is noted before `settled` resolves. */
    scoped<T>(filter: 'validation' | 'out-of-memory', make: () => T): T {
      device.pushErrorScope(filter)
      try {
        return make()
      } finally {
        const said = device.popErrorScope().then(note, () => {})
        pending = pending.then(() => said)
      }
    },
    async settled() {
      await pending
      check()
    },
    /** A call was rejected: because the device is gone, mostly, which its `lost` says better. */
    async explain(error: unknown): Promise<never> {
      const nothing = new Promise<void>((resolve) => setTimeout(resolve, LOST_NOTICE_MS))
      await Promise.race([device.lost, nothing])
      await pending
      check()
      throw error
    },
  }
}

/** How long the device may take to say that it is lost once a call of it was rejected. */
const LOST_NOTICE_MS = 1000
