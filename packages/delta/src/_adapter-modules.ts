import type { Checkpoint, Problem, Tensor } from '@polygraft/tensor'
import { knownFamily } from './effective-tensors.js'
import type { Adapter } from './read-adapter.js'

/** The tensors that adapt one module: B A, by its factors. */
export interface AdaptedModule {
  /** The module's name in the base, `model.layers.0.self_attn.q_proj`. */
  readonly module: string
  /** A [rank, in]; of an embedding [rank, V]. */
  readonly a?: Tensor
  /** B [out, rank]; of an embedding [H, rank]. */
  readonly b?: Tensor
  /** Added to the layer's bias together with B A. [out] */
  readonly bBias?: Tensor
  /** DoRA's magnitude of each row. [out] */
  readonly magnitude?: Tensor
  readonly isEmbedding: boolean
}

/** What an adapter holds, by the names of the base. */
export interface AdapterContent {
  readonly modules: readonly AdaptedModule[]
  /** Tensors that stand in place of the base's, by its names. */
  readonly replaced: ReadonlyMap<string, Tensor>
  /** Those of them that the modules' B A is added to: peft saves the weight of an adapted embedding or head as well. */
  readonly under: ReadonlySet<string>
  readonly problems: readonly Problem[]
}

const PREFIX = 'base_model.model.'
const FACTORS: readonly (readonly [
  suffix: RegExp,
  key: 'a' | 'b' | 'bBias' | 'magnitude',
  isEmbedding: boolean,
])[] = [
  [/\.lora_A\.weight$/, 'a', false],
  [/\.lora_B\.weight$/, 'b', false],
  [/\.lora_B\.bias$/, 'bBias', false],
  [/\.lora_embedding_A$/, 'a', true],
  [/\.lora_embedding_B$/, 'b', true],
  [/\.lora_magnitude_vector(\.weight)?$/, 'magnitude', false],
]

/** Sorts an adapter's tensors by what they are for. */
export function adapterContent({ checkpoint }: Adapter): AdapterContent {
  const modules = new Map<string, AdaptedModule>()
  const replaced = new Map<string, Tensor>()
  const under = new Set<string>()
  const problems: Problem[] = []
  for (const [stored, tensor] of checkpoint.tensors) {
    const name = stored.startsWith(PREFIX) ? stored.slice(PREFIX.length) : undefined
    const factor = FACTORS.find(([suffix]) => name !== undefined && suffix.test(name))
    if (name !== undefined && factor) {
      const [suffix, key, isEmbedding] = factor
      const module = name.replace(suffix, '')
      const known = modules.get(module) ?? { module, isEmbedding: false }
      modules.set(module, { ...known, [key]: tensor, isEmbedding: known.isEmbedding || isEmbedding })
    } else if (name === undefined || name.includes('.lora_')) problems.push(unknownTensor(stored))
    else {
      const own = name.replace('.base_layer.', '.')
      replaced.set(own, tensor)
      if (own !== name && own.endsWith('.weight')) under.add(own)
    }
  }
  for (const { module, a, b } of modules.values())
    if (!a || !b) problems.push(halfPair(module, a ? 'B' : 'A'))
  return { modules: [...modules.values()].filter(({ a, b }) => a && b), replaced, under, problems }
}

/**
 * Whether the module's weight is stored as [in, out] and takes (B A)^T. peft asks the layer; the families that are known here store
 * every weight but the embedding's as [out, in], whatever the configuration says.
 */
export function isTransposed(
  target: Checkpoint,
  { config }: Adapter,
  { isEmbedding }: AdaptedModule,
): boolean {
  return isEmbedding || (config.fanInFanOut && knownFamily(target) === undefined)
}

function unknownTensor(tensor: string): Problem {
  return {
    code: 'unknown-tensor',
    message: 'The adapter has a tensor that is neither a factor nor a tensor of the base',
    tensor,
    expected: `${PREFIX}<module>.lora_A.weight, lora_B.weight, ...`,
    next: 'Save the adapter with save_pretrained of a current peft.',
  }
}

function halfPair(module: string, missing: 'A' | 'B'): Problem {
  return {
    code: 'missing-factor',
    message: `The adapter lacks ${missing} of a module`,
    tensor: `${PREFIX}${module}.lora_${missing}.weight`,
    next: 'Copy the adapter again.',
  }
}
