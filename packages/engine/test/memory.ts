import {
  byteSize,
  type Checkpoint,
  type DType,
  numel,
  type Source,
  type StoredTensor,
  stateDictOf,
} from '@polygraft/tensor'

/** A tensor for tests: its stored bytes. */
export interface Bytes {
  readonly dtype: DType
  readonly shape: readonly number[]
  readonly bytes: Uint8Array
}

/** A source whose tensors lie one after the other in one Blob. */
export function sourceOf(id: string, tensors: Readonly<Record<string, Bytes>>): Source {
  const stored = new Map<string, StoredTensor>()
  let begin = 0
  for (const [name, { dtype, shape, bytes }] of Object.entries(tensors)) {
    if (bytes.length !== byteSize(dtype, numel(shape))) throw new Error(`${name}: ${bytes.length} bytes`)
    stored.set(name, { dtype, shape, file: 'model.safetensors', begin, end: begin + bytes.length })
    begin += bytes.length
  }
  const blob = new Blob(Object.values(tensors).map(({ bytes }) => bytes as Uint8Array<ArrayBuffer>))
  return { id, location: `memory:${id}`, tensors: stored, shards: new Map([['model.safetensors', blob]]) }
}

export function checkpointOf(source: Source): Checkpoint {
  return {
    config: { model_type: 'llama' },
    tensors: stateDictOf(source),
    files: new Map(),
    sources: new Map([[source.id, source]]),
    provenance: { recipe: [], skipped: [] },
  }
}

export function f32(values: ArrayLike<number>, shape: readonly number[] = [values.length]): Bytes {
  return { dtype: 'F32', shape, bytes: new Uint8Array(Float32Array.from(values).buffer) }
}

/** BF16 by its bit patterns. */
export function bf16(patterns: ArrayLike<number>, shape: readonly number[] = [patterns.length]): Bytes {
  return { dtype: 'BF16', shape, bytes: new Uint8Array(Uint16Array.from(patterns).buffer) }
}

export const floats = (bytes: Uint8Array): number[] => [...new Float32Array(bytes.slice().buffer)]
