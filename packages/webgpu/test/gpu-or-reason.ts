import { ModelError } from '@polygraft/tensor'
import { createGpu, type Gpu, type GpuOptions } from '@polygraft/webgpu'
import { openDawn } from '@polygraft/webgpu/node'

/** A device of the machine's GPU, or why there is none. */
export async function gpuOrReason(options: Omit<GpuOptions, 'gpu'> = {}): Promise<Gpu | string> {
  try {
    return await createGpu({ ...options, gpu: await openDawn() })
  } catch (error) {
    if (error instanceof ModelError && ['no-adapter', 'no-webgpu'].includes(error.code))
      return error.message.split('\n')[0]!
    throw error
  }
}
