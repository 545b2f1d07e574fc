import { expectedTensors, familyOf } from '@polygraft/architectures'
import { type Checkpoint, type FloatDType, type JsonObject, numel, type Tensor } from '@polygraft/tensor'

/** A checkpoint of random weights, which no file holds: every kind of tensor away from what would hide it (norms of 1, biases of 0). */
export function tinyCheckpoint(config: JsonObject, dtype: FloatDType): Checkpoint {
  const tensors = new Map<string, Tensor>()
  for (const [name, shape] of expectedTensors(familyOf(config), config)) {
    const scale = shape.length === 1 ? 1 : 3 * (shape.at(-1) || 1) ** -0.5
    const expr = { op: 'random', distribution: 'uniform', scale, seed: 1, name } as const
    if (numel(shape) > 0) tensors.set(name, { dtype, shape, expr })
  }
  return {
    config,
    tensors,
    files: new Map(),
    sources: new Map(),
    provenance: { recipe: [], skipped: [] },
  }
}
