import { overLimit } from './_errors.js'
import type { GpuKernel } from './define-kernel.js'
import type { Dispatch, GpuBuffer } from './gpu.js'
import type { GpuDevice, NativeBuffer } from './webgpu-api.js'

/** Shader stage and buffer usages of the standard. */
const COMPUTE = 4
const UNIFORM_COPY_DST = 64 | 8
const FIRST_UNIFORM_BYTES = 2 ** 14

interface Pipeline {
  readonly pipeline: object
  readonly layout: object
}

/** Compiles kernels when they first run, and encodes dispatches. Holds one buffer, for all parameters of a submission. */
export function createPipelines(device: GpuDevice) {
  const compiled = new Map<GpuKernel, Map<string, Pipeline>>()
  const uniforms = createUniforms(device)

  function pipelineOf(kernel: GpuKernel, overrides: Readonly<Record<string, number>>): Pipeline {
    const variants = compiled.get(kernel) ?? new Map<string, Pipeline>()
    compiled.set(kernel, variants)
    const key = JSON.stringify(overrides)
    const made = variants.get(key) ?? compile(device, kernel, overrides)
    variants.set(key, made)
    return made
  }

  return {
    /** In one pass: WebGPU orders dispatches that touch the same buffers. */
    submit(dispatches: readonly Dispatch[]): void {
      const grids = dispatches.map((dispatch) => gridOf(device, dispatch))
      const offsets = uniforms.fill(dispatches.map(paramsOf))
      const encoder = device.createCommandEncoder()
      const pass = encoder.beginComputePass()
      for (const [i, { kernel, buffers, overrides }] of dispatches.entries()) {
        if (grids[i]!.includes(0)) continue
        const { pipeline, layout } = pipelineOf(kernel, overrides)
        const params = { buffer: uniforms.buffer(), offset: offsets[i]!, size: paramsBytes(kernel) }
        const entries = entriesOf(kernel, buffers, params)
        pass.setPipeline(pipeline)
        pass.setBindGroup(0, device.createBindGroup({ layout, entries }))
        pass.dispatchWorkgroups(...grids[i]!)
      }
      pass.end()
      device.queue.submit([encoder.finish()])
    },
    destroy: () => uniforms.buffer().destroy(),
  }
}

function compile(
  device: GpuDevice,
  kernel: GpuKernel,
  overrides: Readonly<Record<string, number>>,
): Pipeline {
  const types = Object.values(kernel.bindings).map(({ access }) =>
    access === 'read' ? 'read-only-storage' : 'storage',
  )
  const all = paramsBytes(kernel) > 0 ? [...types, 'uniform'] : types
  const layout = device.createBindGroupLayout({
    label: kernel.name,
    entries: all.map((type, binding) => ({ binding, visibility: COMPUTE, buffer: { type } })),
  })
  const pipeline = device.createComputePipeline({
    label: kernel.name,
    layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
    compute: {
      module: device.createShaderModule({ label: kernel.name, code: kernel.wgsl }),
      entryPoint: 'main',
      constants: overrides,
    },
  })
  return { pipeline, layout }
}

function entriesOf(
  kernel: GpuKernel,
  buffers: Readonly<Record<string, GpuBuffer>>,
  params: { size: number },
) {
  const storage = Object.keys(kernel.bindings).map((name) => ({ buffer: buffers[name]!.native }))
  const all = params.size > 0 ? [...storage, params] : storage
  return all.map((resource, binding) => ({ binding, resource }))
}

function gridOf(device: GpuDevice, { kernel, params, overrides }: Dispatch) {
  const grid = kernel.grid(params, { ...kernel.overrides, ...overrides })
  const { maxComputeWorkgroupsPerDimension: most } = device.limits
  if (Math.max(...grid) > most)
    throw overLimit(`The kernel '${kernel.name}' has too many workgroups`, most, Math.max(...grid))
  return grid
}

/** Four bytes a parameter, filled up to 16 as WGSL lays out a uniform struct of scalars. */
function paramsBytes(kernel: GpuKernel): number {
  return Math.ceil(Object.keys(kernel.params).length / 4) * 16
}

function paramsOf({ kernel, params }: Dispatch): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(paramsBytes(kernel)))
  for (const [i, [name, type]] of Object.entries(kernel.params).entries()) {
    if (type === 'u32') view.setUint32(i * 4, params[name]!, true)
    else view.setFloat32(i * 4, params[name]!, true)
  }
  return new Uint8Array(view.buffer)
}

/** One uniform buffer that grows. A write is queued after the submissions before it, so it is used again each time. */
function createUniforms(device: GpuDevice) {
  const align = device.limits.minUniformBufferOffsetAlignment
  const make = (size: number) => device.createBuffer({ label: 'params', size, usage: UNIFORM_COPY_DST })
  let buffer: NativeBuffer = make(FIRST_UNIFORM_BYTES)
  return {
    buffer: () => buffer,
    /** Puts all blocks into the buffer; returns where each begins. */
    fill(blocks: readonly Uint8Array[]): readonly number[] {
      let end = 0
      const offsets = blocks.map((block) => {
        const begin = end
        end += Math.ceil(block.length / align) * align
        return begin
      })
      const bytes = new Uint8Array(end)
      for (const [i, block] of blocks.entries()) bytes.set(block, offsets[i]!)
      if (end > buffer.size) {
        buffer.destroy() // what was submitted keeps it until it has run
        buffer = make(2 ** Math.ceil(Math.log2(end)))
      }
      if (end > 0) device.queue.writeBuffer(buffer, 0, bytes)
      return offsets
    },
  }
}
