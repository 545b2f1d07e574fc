import { expectedTensors, familyOf } from '@polygraft/architectures'
import type { Checkpoint, DType, JsonObject, Source, StoredTensor } from '@polygraft/tensor'
import { byteSize, numel, stateDictOf } from '@polygraft/tensor'

const SIZES = {
  vocab_size: 20,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
}

/** A config of that family at a tiny size. */
export function tinyConfig(modelType: string, change: JsonObject = {}): JsonObject {
  return { model_type: modelType, torch_dtype: 'bfloat16', ...SIZES, head_dim: 4, ...change }
}

/** A checkpoint that exists in name only: everything a stock model of `config` stores, and no bytes behind it. */
export function syntheticCheckpoint(config: JsonObject, dtype: DType = 'BF16'): Checkpoint {
  let end = 0
  const tensors = new Map<string, StoredTensor>()
  for (const [name, shape] of expectedTensors(familyOf(config), config)) {
    const begin = end
    end += byteSize(dtype, numel(shape))
    tensors.set(name, { dtype, shape, file: 'model.safetensors', begin, end })
  }
  const source: Source = { id: 'synthetic', location: 'memory', tensors, shards: new Map() }
  return {
    config,
    tensors: stateDictOf(source),
    files: new Map(),
    sources: new Map([[source.id, source]]),
    provenance: { recipe: [], skipped: [] },
  }
}
