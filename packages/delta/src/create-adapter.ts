import { roleOf } from '@polygraft/architectures'
import {
  type Checkpoint,
  type JsonObject,
  literal,
  ModelError,
  type Problem,
  type Tensor,
  throwIfAny,
} from '@polygraft/tensor'
import { knownFamily } from './effective-tensors.js'
import { names } from './lora-config.js'
import { factorProblems, type LowRankFactors, moduleOf } from './low-rank.js'
import { ADAPTER_CONFIG_FILE } from './read-adapter.js'

export interface CreateAdapterOptions {
  /** From `createDelta`. */
  readonly delta: Checkpoint
  /** Measured of its `lowRankTargets`. A matrix of rank 0 is left out. */
  readonly factors: ReadonlyMap<string, LowRankFactors>
  /** How the factors are stored. Default F32. */
  readonly dtype?: 'F32' | 'F16' | 'BF16'
  /** What the adapter says it is for. */
  readonly base?: string
}

/**
 * A LoRA adapter in peft's form: `adapter_model.safetensors` with B = up and A = down of each module, so that base + B A is base + Delta_r,
 * and `adapter_config.json`. The most frequent rank is `r`, other ones stand in `rank_pattern`, and alpha equals the rank everywhere,
 * so that the factor of B A is 1.
 * @throws ModelError "nothing-to-adapt"; "unknown-module", "shape-mismatch" with all factors that do not fit.
 */
export function createAdapter(options: CreateAdapterOptions): Checkpoint {
  const { delta, dtype = 'F32' } = options
  throwIfAny([...options.factors].flatMap(([name, factors]) => factorProblems(delta, name, factors)))
  const factors = [...options.factors].filter(([, { rank }]) => rank > 0)
  if (factors.length === 0) throw new ModelError(nothing())
  const tensors = new Map<string, Tensor>()
  for (const [name, { rank, up, down }] of factors) {
    const [rows, width] = delta.tensors.get(name)!.shape as [number, number]
    const module = `base_model.model.${moduleOf(name)}`
    if (isEmbedding(delta, name)) {
      // peft adds (B A)^T to an embedding [V, H].
      const a = literal(transposed(up, rows, rank))
      const b = literal(transposed(down, rank, width))
      tensors.set(`${module}.lora_embedding_A`, { dtype, shape: [rank, rows], expr: a })
      tensors.set(`${module}.lora_embedding_B`, { dtype, shape: [width, rank], expr: b })
    } else {
      tensors.set(`${module}.lora_A.weight`, { dtype, shape: [rank, width], expr: literal(down) })
      tensors.set(`${module}.lora_B.weight`, { dtype, shape: [rows, rank], expr: literal(up) })
    }
  }
  const ranks = new Map(factors.map(([name, { rank }]) => [moduleOf(name), rank] as const))
  const config = `${JSON.stringify(configOf(delta, ranks, options.base), undefined, 2)}\n`
  const step = { op: 'lora_extract', ranks: Object.fromEntries(ranks), dtype }
  return {
    config: {},
    tensors,
    files: new Map([[ADAPTER_CONFIG_FILE, new Blob([config])]]),
    weightsName: 'adapter_model',
    sources: delta.sources,
    provenance: { recipe: [...delta.provenance.recipe, step], skipped: [] },
  }
}

function configOf(
  delta: Checkpoint,
  ranks: ReadonlyMap<string, number>,
  base: string | undefined,
): JsonObject {
  const r = mostFrequent([...ranks.values()])
  const others = Object.fromEntries(
    [...ranks].filter(([, rank]) => rank !== r).map(([module, rank]) => [exactly(module), rank]),
  )
  return {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: base ?? null,
    inference_mode: true,
    r,
    lora_alpha: r,
    rank_pattern: others,
    alpha_pattern: others,
    target_modules: targetsOf(delta, new Set(ranks.keys())),
    bias: 'none',
    fan_in_fan_out: false,
    init_lora_weights: true,
    lora_dropout: 0,
    modules_to_save: null,
    use_dora: false,
    use_rslora: false,
  }
}

/** As the last part of names where that names no other module, else the whole names. */
function targetsOf({ tensors }: Checkpoint, modules: ReadonlySet<string>): string[] {
  const ends = [...new Set([...modules].map((module) => module.slice(module.lastIndexOf('.') + 1)))].sort()
  const named = [...tensors.keys()].map(moduleOf).filter((module) => names(ends, module))
  return named.every((module) => modules.has(module)) ? ends : [...modules]
}

/** As a pattern of peft's that fits this module and no other that merely ends so. */
function exactly(module: string): string {
  return `^${module.replaceAll('.', '\\.')}`
}

function mostFrequent(values: readonly number[]): number {
  const counts = new Map<number, number>()
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1)
  return [...counts].sort(([a, m], [b, n]) => n - m || b - a)[0]![0]
}

function isEmbedding(delta: Checkpoint, name: string): boolean {
  const family = knownFamily(delta)
  return family !== undefined && roleOf(family, name).group === 'embedding'
}

function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  return Float32Array.from(
    { length: values.length },
    (_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!,
  )
}

function nothing(): Problem {
  return {
    code: 'nothing-to-adapt',
    message: 'The delta is zero in all of the chosen matrices',
    next: 'Is post really another model than base? polygraft diff shows what changed.',
  }
}
