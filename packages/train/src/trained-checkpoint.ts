import { familyOf, tensorProblems } from '@polygraft/architectures'
import { digestFile, evaluate } from '@polygraft/engine'
import { type Checkpoint, type JsonObject, read, type Source, sourceIds, throwIfAny } from '@polygraft/tensor'
import { formatSafetensors, parseSafetensors } from '@polygraft/tensor-io'
import type { Tensors } from './parameters.js'

/**
 * Reads a checkpoint's tensors into `values`, in F32.
 * @throws ModelError with every tensor that is not what the config says.
 */
export async function loadValues({ config, tensors, sources }: Checkpoint, values: Tensors): Promise<void> {
  throwIfAny(tensorProblems(familyOf(config), config, tensors))
  for (const [name, value] of values) {
    const bytes = await evaluate({ ...tensors.get(name)!, dtype: 'F32' }, sources)
    value.set(new Float32Array(bytes.buffer, bytes.byteOffset, value.length))
  }
}

/**
 * `checkpoint` with the tensors of `trained` in place of its own, in its dtypes: rounded once. All else stays as it is to the byte.
 * @param step What is recorded of how they came about.
 */
export async function trainedCheckpoint(
  checkpoint: Checkpoint,
  trained: Tensors,
  step: JsonObject,
): Promise<Checkpoint> {
  const source = await sourceOf(checkpoint, trained)
  const tensors = [...checkpoint.tensors].map(
    ([name, tensor]) =>
      [name, trained.has(name) ? { ...tensor, expr: read(source.id, name) } : tensor] as const,
  )
  const { provenance } = checkpoint
  return {
    ...checkpoint,
    tensors: new Map(tensors),
    sources: new Map([...checkpoint.sources, [source.id, source]]),
    provenance: { ...provenance, recipe: [...provenance.recipe, { ...step, inputs: sourceIds(checkpoint) }] },
  }
}

/** The trained values as a safetensors file in memory, named by its content. */
async function sourceOf({ tensors }: Checkpoint, trained: Tensors): Promise<Source> {
  const specs = [...trained.keys()].map(
    (name) => [name, { dtype: 'F32' as const, shape: tensors.get(name)!.shape }] as const,
  )
  const { header, tensors: places, size } = formatSafetensors(specs)
  const bytes = new Uint8Array(size)
  bytes.set(header)
  for (const [name, { begin }] of places)
    bytes.set(new Uint8Array(Float32Array.from(trained.get(name)!).buffer), begin)
  const file = 'trained.safetensors'
  const blob = new Blob([bytes])
  const parsed = parseSafetensors(header.subarray(8), size, file)
  return {
    id: `trained-${await digestFile(blob)}`,
    location: '(training)',
    tensors: parsed.tensors,
    shards: new Map([[file, blob]]),
  }
}
