import { ModelError } from '@polygraft/tensor'
import type { GpuApi } from '../webgpu-api.js'

/**
 * WebGPU in Node: Dawn, from the npm package `webgpu`, which is not installed with this one. Each call is an instance of its
 * own. Keep it as long as its devices are used.
 * @param flags of Dawn, such as `backend=vulkan`.
 * @throws ModelError 'no-webgpu' when the package is missing or has no build for this machine.
 */
export async function openDawn(flags: readonly string[] = []): Promise<GpuApi> {
  try {
    const { create } = await import('webgpu')
    return create([...flags]) as unknown as GpuApi
  } catch (cause) {
    const problem = {
      code: 'no-webgpu',
      message: 'Node has no WebGPU of its own, and the package that brings it cannot be loaded',
      received: cause instanceof Error ? cause.message.split('\n')[0]! : `${cause}`,
      next: 'npm install webgpu',
    }
    throw new ModelError(problem, { cause })
  }
}
