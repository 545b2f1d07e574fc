import { createGpu, defineKernel, dispatch, type Gpu, type GpuApi } from '@polygraft/webgpu'
import { openDawn } from '@polygraft/webgpu/node'
import { describe, expect, it } from 'vitest'
import { gpuOrReason } from './gpu-or-reason.js'

const broken = (main: string) =>
  defineKernel({
    name: 'broken',
    bindings: { y: { access: 'read-write', type: 'u32' } },
    params: {},
    workgroup: [1, 1, 1],
    main,
    grid: () => [1, 1, 1],
  })

describe('createGpu', () => {
  it('says that there is no WebGPU, or no GPU', async () => {
    await expect(createGpu()).rejects.toMatchObject({ code: 'no-webgpu' })
    const none: GpuApi = { requestAdapter: async () => null }
    await expect(createGpu({ gpu: none })).rejects.toMatchObject({ code: 'no-adapter' })
  })

  it("refuses Dawn's null backend, which computes nothing", async () => {
    const gpu = await openDawn(['backend=null'])
    await expect(createGpu({ gpu })).rejects.toMatchObject({ code: 'null-adapter' })
  })
})

const first = await gpuOrReason()
const none = typeof first === 'string' ? first : undefined
if (typeof first !== 'string') first.destroy()

/** With a device of its own, which it may break. */
const onGpu = (name: string, run: (gpu: Gpu) => Promise<void>) =>
  it.skipIf(none)(none ? `${name} (${none})` : name, async () => {
    const gpu = await gpuOrReason({ maxBindingBytes: 2 ** 20 })
    if (typeof gpu === 'string') throw new Error(gpu)
    try {
      await run(gpu)
    } finally {
      gpu.destroy()
    }
  })

describe('a device', () => {
  onGpu('refuses a buffer beyond its limit, and goes on', async (gpu) => {
    expect(() => gpu.createBuffer(2 ** 20 + 4)).toThrow(/at most 1048576/)
    const buffer = gpu.createBuffer(7)
    gpu.write(buffer, Uint8Array.of(1, 2, 3, 4, 5, 6, 7))
    expect([...(await gpu.read(buffer, 4, 3))]).toEqual([5, 6, 7])
    expect(gpu.live).toEqual({ buffers: 1, bytes: 8 })
  })

  onGpu('refuses more workgroups than a dimension has', async (gpu) => {
    const wide = { ...broken('y[0] = 1u;'), grid: () => [65_536, 1, 1] as const }
    const y = gpu.createBuffer(4)
    expect(() => gpu.run([dispatch(wide, { y }, {})])).toThrow(/too many workgroups/)
    expect([...(await gpu.read(y))]).toEqual([0, 0, 0, 0])
  })

  onGpu('says what is wrong with a kernel', async (gpu) => {
    const y = gpu.createBuffer(4)
    gpu.run([dispatch(broken('y[0] = nowhere;'), { y }, {})])
    await expect(gpu.read(y)).rejects.toMatchObject({ code: 'gpu-error', message: /nowhere/ })
  })

  onGpu('that is lost in mid-run says so to whoever waits, and from then on', async (gpu) => {
    const y = gpu.createBuffer(4)
    gpu.run([dispatch(broken('y[0] = 1u;'), { y }, {})])
    const pending = gpu.read(y)
    gpu.device.destroy()
    await expect(pending).rejects.toMatchObject({ code: 'device-lost' })
    expect(() => gpu.createBuffer(4)).toThrow(/device/)
    await expect(gpu.read(y)).rejects.toMatchObject({ code: 'device-lost' })
  })

  onGpu('does not take others with it', async (gpu) => {
    const other = await gpuOrReason()
    if (typeof other === 'string') throw new Error(other)
    other.destroy()
    const y = gpu.createBuffer(4)
    gpu.run([dispatch(broken('y[0] = 258u;'), { y }, {})])
    expect([...(await gpu.read(y))]).toEqual([2, 1, 0, 0])
  })
})
