import { denseName, expectedTensors, type Family, familyNamed, moeConfig } from '@polygraft/architectures'
import { byteSize, type JsonObject, numel } from '@polygraft/tensor'

/** A model that exists only to be measured: its config, its tensors' shapes, and the dense tensor each comes from. */
export interface BenchModel {
  readonly config: JsonObject
  readonly shapes: ReadonlyMap<string, readonly number[]>
  /** Name of the dense tensor that a tensor stems from; undefined for a router. */
  origin(name: string): string | undefined
}

/** Base and instruct are `dense`; the continued-pre-trained model is `cpt`, dense too when it has one expert. */
export interface BenchModels {
  readonly dense: BenchModel
  readonly cpt: BenchModel
}

const HIDDEN_SIZES = [2048, 1024, 512, 256, 128, 64]
const MIN_LAYERS = 3
/** Of the bytes, what embeddings take at least. */
const EMBEDDING_SHARE = 0.05

/**
 * Models of Llama's (one expert) or Mixtral's layout whose three checkpoints together come to `totalBytes` in BF16, less
 * than a vocabulary row. The widest that still has a few layers: tensors of a small real model at 1 GiB each.
 */
export function benchModels(totalBytes: number, experts: number): BenchModels {
  for (const hiddenSize of HIDDEN_SIZES) {
    const bytes = (layers: number, vocabulary: number) =>
      tripleBytes(modelsOf({ hiddenSize, layers, vocabulary, experts }))
    const perLayer = bytes(2, 1) - bytes(1, 1)
    const layers = Math.floor((totalBytes * (1 - EMBEDDING_SHARE)) / perLayer)
    if (layers < MIN_LAYERS) continue
    const perRow = bytes(1, 2) - bytes(1, 1)
    const vocabulary = 1 + Math.floor((totalBytes - bytes(layers, 1)) / perRow)
    return modelsOf({ hiddenSize, layers, vocabulary, experts })
  }
  throw new Error(`No model is as small as ${totalBytes} bytes for three checkpoints.`)
}

/** Weights of a model in BF16. Unit: bytes. */
export function modelBytes({ shapes }: BenchModel): number {
  return [...shapes.values()].reduce((sum, shape) => sum + byteSize('BF16', numel(shape)), 0)
}

function tripleBytes({ dense, cpt }: BenchModels): number {
  return 2 * modelBytes(dense) + modelBytes(cpt)
}

interface Sizes {
  readonly hiddenSize: number
  readonly layers: number
  readonly vocabulary: number
  readonly experts: number
}

function modelsOf(sizes: Sizes): BenchModels {
  const config = denseConfig(sizes)
  const llama = familyNamed('llama')!
  const dense = modelOf(llama, config, (name) => name)
  if (sizes.experts === 1) return { dense, cpt: dense }
  const mixtral = familyNamed('mixtral')!
  const sparse = moeConfig(config, mixtral, { numExperts: sizes.experts, topK: 2 })
  return { dense, cpt: modelOf(mixtral, sparse, (name) => denseName(mixtral, llama, name)) }
}

function modelOf(family: Family, config: JsonObject, origin: BenchModel['origin']): BenchModel {
  return { config, shapes: expectedTensors(family, config), origin }
}

function denseConfig({ hiddenSize, layers, vocabulary }: Sizes): JsonObject {
  const heads = Math.max(2, hiddenSize / 64)
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_act: 'silu',
    hidden_size: hiddenSize,
    intermediate_size: 3.5 * hiddenSize,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: Math.max(1, heads / 4),
    head_dim: hiddenSize / heads,
    vocab_size: vocabulary,
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    attention_bias: false,
    mlp_bias: false,
    tie_word_embeddings: true,
    bos_token_id: 0,
    eos_token_id: 0,
    torch_dtype: 'bfloat16',
  }
}
