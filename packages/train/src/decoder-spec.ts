import {
  dimensionsOf,
  type Family,
  familyOf,
  isSparseLayer,
  nameOf,
  type Part,
  type Role,
  ropeOf,
  windowsOf,
} from '@polygraft/architectures'
import { type JsonObject, type Problem, throwIfAny } from '@polygraft/tensor'

/** A matrix [out, in] and perhaps a bias [out], by tensor name. */
export interface LinearSpec {
  readonly weight: string
  readonly bias?: string
  readonly out: number
  readonly in: number
}

/** down(silu(gate(x)) * up(x)) */
export interface MlpSpec {
  readonly gate: LinearSpec
  readonly up: LinearSpec
  readonly down: LinearSpec
}

/** What a decoder layer is made of. Either `mlp`, or `router` and `experts`. */
export interface LayerSpec {
  /** Tokens that a position sees, itself included; null for all. */
  readonly window: number | null
  readonly attentionNorm: string
  readonly q: LinearSpec
  readonly k: LinearSpec
  readonly v: LinearSpec
  readonly o: LinearSpec
  readonly qNorm?: string
  readonly kNorm?: string
  readonly ffnNorm: string
  readonly mlp?: MlpSpec
  readonly router?: LinearSpec
  readonly experts?: readonly MlpSpec[]
  /** Added to the experts' output, weighted by sigmoid(scale(x)). */
  readonly shared?: MlpSpec & { readonly scale: LinearSpec }
}

/** A decoder as plain data: sizes, and the tensor that plays each part. H hidden, V vocabulary, E experts, k experts a token. */
export interface DecoderSpec {
  readonly config: JsonObject
  readonly vocabularySize: number
  readonly hiddenSize: number
  readonly numHeads: number
  readonly numKeyValueHeads: number
  readonly headDim: number
  readonly numExperts: number
  readonly topK: number
  /** Whether the weights of a token's k experts are made to sum to 1. */
  readonly normalize: boolean
  readonly eps: number
  readonly embedding: string
  readonly layers: readonly LayerSpec[]
  readonly finalNorm: string
  /** The embedding's name where both are one. */
  readonly head: LinearSpec
}

/**
 * What `config` describes.
 * @throws ModelError "unsupported-family", "bad-config"; "unsupported-config" with every field that training does not know.
 */
export function decoderSpec(config: JsonObject): DecoderSpec {
  const family = familyOf(config)
  const sizes = dimensionsOf(family, config)
  throwIfAny(unsupported(family, config))
  const names = (role: Role) => nameOf(family, role)
  const tied = fieldOf(family, config, 'tie_word_embeddings') === true
  const embedding = names({ group: 'embedding' })!
  const windows = windowsOf(family, config, sizes.numLayers)
  const headName = tied ? embedding : names({ group: 'head' })!
  return {
    config,
    vocabularySize: sizes.vocabularySize,
    hiddenSize: sizes.hiddenSize,
    numHeads: sizes.numHeads,
    numKeyValueHeads: sizes.numKeyValueHeads,
    headDim: sizes.headDim,
    numExperts: sizes.numExperts,
    topK: sizes.topK,
    normalize: factOf(family, config, family.normTopkProb ?? false),
    eps: Number(fieldOf(family, config, 'rms_norm_eps')),
    embedding,
    layers: windows.map((window, layer) => layerSpec(family, config, layer, window)),
    finalNorm: names({ group: 'norm', part: 'final_norm' })!,
    head: { weight: headName, out: sizes.vocabularySize, in: sizes.hiddenSize },
  }
}

function layerSpec(family: Family, config: JsonObject, layer: number, window: number | null): LayerSpec {
  const sizes = dimensionsOf(family, config)
  const { hiddenSize, headDim, numExperts, sharedExpertSize } = sizes
  const [queries, keys] = [sizes.numHeads * headDim, sizes.numKeyValueHeads * headDim]
  const linear = (role: Omit<Role, 'layer'>, out: number, width: number, bias = false): LinearSpec => ({
    weight: nameOf(family, { ...role, layer })!,
    ...(bias ? { bias: nameOf(family, { ...role, layer, part: `${role.part}_bias` as Part })! } : {}),
    out,
    in: width,
  })
  const mlp = (role: Omit<Role, 'layer' | 'part'>, size: number, bias = false): MlpSpec => ({
    gate: linear({ ...role, part: 'gate' }, size, hiddenSize, bias),
    up: linear({ ...role, part: 'up' }, size, hiddenSize, bias),
    down: linear({ ...role, part: 'down' }, hiddenSize, size, bias),
  })
  const norm = (part: Part) => nameOf(family, { group: 'norm', part, layer })!
  const qkv = factOf(family, config, family.qkvBias)
  const sparse = isSparseLayer(family, config, layer)
  const experts = Array.from({ length: numExperts }, (_, expert) =>
    mlp({ group: 'expert', expert }, sizes.expertIntermediateSize),
  )
  return {
    window,
    attentionNorm: norm('attention_norm'),
    q: linear({ group: 'attention', part: 'q' }, queries, hiddenSize, qkv),
    k: linear({ group: 'attention', part: 'k' }, keys, hiddenSize, qkv),
    v: linear({ group: 'attention', part: 'v' }, keys, hiddenSize, qkv),
    o: linear(
      { group: 'attention', part: 'o' },
      hiddenSize,
      queries,
      factOf(family, config, family.outputBias),
    ),
    ...(family.qkNorm ? { qNorm: norm('q_norm'), kNorm: norm('k_norm') } : {}),
    ffnNorm: norm('ffn_norm'),
    ...(sparse
      ? { router: linear({ group: 'router' }, numExperts, hiddenSize), experts }
      : { mlp: mlp({ group: 'ffn' }, sizes.intermediateSize, factOf(family, config, family.mlpBias)) }),
    ...(sparse && sharedExpertSize > 0
      ? {
          shared: {
            ...mlp({ group: 'shared_expert' }, sharedExpertSize),
            scale: linear({ group: 'shared_expert', part: 'scale' }, 1, hiddenSize),
          },
        }
      : {}),
  }
}

function unsupported(family: Family, config: JsonObject): Problem[] {
  const activation = fieldOf(family, config, 'hidden_act')
  const dropout = config.attention_dropout
  const kind = ropeOf(family, config).scaling?.rope_type
  const problem = (name: string, expected: string, received: unknown): Problem => ({
    code: 'unsupported-config',
    message: `Training does not know this value of ${name}`,
    file: 'config.json',
    expected,
    received: JSON.stringify(received),
    next: 'Train this model with PyTorch.',
  })
  return [
    ...(activation === 'silu' ? [] : [problem('hidden_act', '"silu"', activation)]),
    ...(dropout ? [problem('attention_dropout', '0', dropout)] : []),
    ...(kind === 'dynamic' ? [problem('rope_type', 'one that does not depend on the length', kind)] : []),
  ]
}

function fieldOf(family: Family, config: JsonObject, name: string) {
  return config[name] ?? family.defaults[name]
}

function factOf(family: Family, config: JsonObject, fact: boolean | string): boolean {
  return typeof fact === 'boolean' ? fact : fieldOf(family, config, fact) === true
}

/** Every tensor of `spec`, each once. */
export function tensorNames(spec: DecoderSpec): readonly string[] {
  const names = new Set([spec.embedding])
  const linear = ({ weight, bias }: LinearSpec) => {
    names.add(weight)
    if (bias !== undefined) names.add(bias)
  }
  const mlp = ({ gate, up, down }: MlpSpec) => [gate, up, down].forEach(linear)
  for (const layer of spec.layers) {
    for (const name of [layer.attentionNorm, layer.qNorm, layer.kNorm, layer.ffnNorm])
      if (name !== undefined) names.add(name)
    for (const each of [layer.q, layer.k, layer.v, layer.o, layer.router, layer.shared?.scale])
      if (each) linear(each)
    for (const each of [layer.mlp, ...(layer.experts ?? []), layer.shared]) if (each) mlp(each)
  }
  names.add(spec.finalNorm)
  linear(spec.head)
  return [...names]
}
