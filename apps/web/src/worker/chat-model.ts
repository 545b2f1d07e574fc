import { isSparseLayer } from '@polygraft/architectures'
import {
  type Backend,
  createCpuBackend,
  createGenerator,
  type Generator,
  type Model,
  openModel,
  openTokenizer,
  readEndTokens,
  type TextTokenizer,
} from '@polygraft/model'
import type { Checkpoint } from '@polygraft/tensor'
import { createDecoderBackend, createGpu } from '@polygraft/webgpu'
import type { ChatModel, Device } from './chat-api.js'
import { type TracedModel, traceModel } from './trace-model.js'

/** A checkpoint on a device. Close it. */
export interface LoadedModel {
  readonly model: Model
  /** The model as the generator runs it. */
  readonly traced: TracedModel
  readonly tokenizer: TextTokenizer
  readonly generator: Generator
  readonly endTokens: readonly number[]
  readonly described: ChatModel
  close(): Promise<void>
}

/**
 * Takes a checkpoint onto a device, tensor by tensor. The tokenizer is looked at first, since that is quick.
 * @throws ModelError as `openTokenizer`, `openModel` and `createGpu`.
 */
export async function loadModel(
  checkpoint: Checkpoint,
  device: Device,
  onProgress: (done: number, total: number) => void,
): Promise<LoadedModel> {
  const tokenizer = await openTokenizer(checkpoint)
  const endTokens = await readEndTokens(checkpoint)
  const { backend, name } = await createDevice(device)
  let done = 0
  const onTensor = () => onProgress(++done, checkpoint.tensors.size)
  try {
    const model = await openModel(checkpoint, { backend, onTensor })
    const traced = traceModel(model)
    const generator = createGenerator(traced.model, tokenizer)
    const described = { device: name, ...describe(checkpoint, model) }
    return { model, traced, tokenizer, generator, endTokens, described, close: () => backend.close() }
  } catch (error) {
    await backend.close()
    throw error
  }
}

function describe(checkpoint: Checkpoint, model: Model): Pick<ChatModel, 'numLayers' | 'experts'> {
  const { family, config, dimensions } = model
  const { numLayers, numExperts } = dimensions
  const isMixture = Array.from({ length: numLayers }, (_, i) => i).some((i) =>
    isSparseLayer(family, config, i),
  )
  const labels = checkpoint.provenance.experts ?? []
  const experts = Array.from({ length: isMixture ? numExperts : 0 }, (_, e) => labels[e] ?? `${e}`)
  return { numLayers, experts }
}

async function createDevice(device: Device): Promise<{ backend: Backend; name: string }> {
  if (device === 'cpu') return { backend: await createCpuBackend(), name: 'CPU' }
  const gpu = await createGpu()
  return { backend: createDecoderBackend(gpu, { ownsGpu: true }), name: `WebGPU: ${gpu.name}` }
}
