import {
  attentionScale,
  type Dimensions,
  dimensionsOf,
  type Family,
  fact,
  field,
  isSparseLayer,
  nameOf,
  type Role,
  windowsOf,
} from '@polygraft/architectures'
import { evaluate } from '@polygraft/engine'
import {
  type Checkpoint,
  type FloatDType,
  type JsonObject,
  ModelError,
  numel,
  type Tensor,
} from '@polygraft/tensor'
import type {
  Activation,
  AttentionLayer,
  Backend,
  Gate,
  GatedMlp,
  Linear,
  Weight,
  WeightSource,
} from './backend.js'

/** A layer's weights on the device. */
export interface Layer {
  readonly attentionNorm: Weight
  readonly attention: AttentionLayer
  readonly ffnNorm: Weight
  /** A dense layer's block. */
  readonly mlp?: GatedMlp
  /** Of a mixture layer. */
  readonly mixture?: Mixture
}

interface Mixture {
  readonly gate: Gate
  readonly experts: readonly GatedMlp[]
  readonly shared?: { readonly mlp: GatedMlp; readonly scale: Weight }
}

/** A whole model on the device. */
export interface Network {
  readonly embedding: Weight
  readonly layers: readonly Layer[]
  readonly finalNorm: Weight
  readonly head: Weight
}

/** Told after each tensor has been taken. Unit: tensors. */
export type OnTensor = () => void

interface Binder {
  readonly family: Family
  readonly config: JsonObject
  readonly sizes: Dimensions
  readonly has: (role: Role) => boolean
  readonly take: (role: Role) => Promise<Weight>
  /** Rows [begin, begin + rows) of a tensor that is seen as a matrix of `columns` columns. */
  readonly takeRows: (role: Role, begin: number, rows: number, columns: number) => Promise<Weight>
}

/** Takes every weight of `checkpoint` onto `backend`, in the order of the layers. The tensors are what the family's config expects. */
export async function bindNetwork(
  family: Family,
  checkpoint: Checkpoint,
  backend: Backend,
  onTensor: OnTensor = () => {},
): Promise<Network> {
  const { config } = checkpoint
  const binder = createBinder(family, checkpoint, backend, onTensor)
  const isTied = field(family, config, 'tie_word_embeddings') === true
  const embedding = await binder.take({ group: 'embedding' })
  const layers: Layer[] = []
  for (let layer = 0; layer < binder.sizes.numLayers; layer++) layers.push(await bindLayer(binder, layer))
  const finalNorm = await binder.take({ group: 'norm', part: 'final_norm' })
  const head = isTied ? embedding : await binder.take({ group: 'head' })
  return { embedding, layers, finalNorm, head }
}

function createBinder(family: Family, checkpoint: Checkpoint, backend: Backend, onTensor: OnTensor): Binder {
  const { config, tensors } = checkpoint
  const find = (role: Role) => {
    const name = nameOf(family, role)
    return name === undefined ? undefined : tensors.get(name)
  }
  const upload = async (source: WeightSource) => {
    const weight = await backend.upload(source)
    onTensor()
    return weight
  }
  return {
    family,
    config,
    sizes: dimensionsOf(family, config),
    has: (role) => find(role) !== undefined,
    take: (role) => {
      const tensor = find(role)!
      return upload(sourceOf(checkpoint, tensor, tensor.shape, 0))
    },
    takeRows: (role, begin, rows, columns) =>
      upload(sourceOf(checkpoint, find(role)!, [rows, columns], begin * columns)),
  }
}

/** A part of a tensor, evaluated where it is read; what no device stores (F64) is rounded to F32. */
function sourceOf(
  { sources }: Checkpoint,
  tensor: Tensor,
  shape: readonly number[],
  offset: number,
): WeightSource {
  const dtype = (tensor.dtype === 'F64' ? 'F32' : tensor.dtype) as FloatDType
  const rounded: Tensor = { ...tensor, dtype }
  const size = numel(shape)
  return {
    dtype,
    shape,
    read: (begin, end) =>
      evaluate(rounded, sources, { begin: offset + begin, end: offset + Math.min(end, size) }),
  }
}

async function bindLayer(binder: Binder, layer: number): Promise<Layer> {
  const { family, config, take } = binder
  const attentionNorm = await take({ group: 'norm', part: 'attention_norm', layer })
  const attention = await bindAttention(binder, layer)
  const ffnNorm = await take({ group: 'norm', part: 'ffn_norm', layer })
  const common = { attentionNorm, attention, ffnNorm }
  if (isSparseLayer(family, config, layer)) return { ...common, mixture: await bindMixture(binder, layer) }
  return { ...common, mlp: await bindMlp(binder, 'ffn', layer) }
}

async function bindAttention(
  { family, config, sizes, take }: Binder,
  layer: number,
): Promise<AttentionLayer> {
  const hasBias = fact(family, config, family.qkvBias)
  const hasOutputBias = fact(family, config, family.outputBias)
  const of = async (part: 'q' | 'k' | 'v' | 'o'): Promise<Linear> => {
    const weight = await take({ group: 'attention', part, layer })
    const isBiased = part === 'o' ? hasOutputBias : hasBias
    return isBiased
      ? { weight, bias: await take({ group: 'attention', part: `${part}_bias`, layer }) }
      : { weight }
  }
  const norm = (part: 'q_norm' | 'k_norm') => take({ group: 'norm', part, layer })
  return {
    layer,
    ...{ q: await of('q'), k: await of('k'), v: await of('v'), o: await of('o') },
    ...(family.qkNorm ? { qNorm: await norm('q_norm'), kNorm: await norm('k_norm') } : {}),
    numHeads: sizes.numHeads,
    keyValueHeads: sizes.numKeyValueHeads,
    headDim: sizes.headDim,
    eps: epsOf(family, config),
    scale: Object.hasOwn(family.defaults, 'attention_multiplier')
      ? Number(field(family, config, 'attention_multiplier'))
      : attentionScale(sizes.headDim),
    window: windowsOf(family, config, sizes.numLayers)[layer] ?? null,
  }
}

async function bindMlp(
  { family, config, take }: Binder,
  group: 'ffn' | 'expert' | 'shared_expert',
  layer: number,
  expert?: number,
): Promise<GatedMlp> {
  const place = expert === undefined ? { layer } : { layer, expert }
  const hasBias = group === 'ffn' && fact(family, config, family.mlpBias)
  const of = async (part: 'gate' | 'up' | 'down'): Promise<Linear> => {
    const weight = await take({ group, part, ...place })
    return hasBias ? { weight, bias: await take({ group, part: `${part}_bias`, ...place }) } : { weight }
  }
  return {
    gate: await of('gate'),
    up: await of('up'),
    down: await of('down'),
    activation: activationOf(family, config),
  }
}

async function bindMixture(binder: Binder, layer: number): Promise<Mixture> {
  const { family, config, sizes, take, has } = binder
  const router = await take({ group: 'router', layer })
  const normalize = fact(family, config, family.normTopkProb ?? true)
  const isFused = has({ group: 'expert', part: 'gate_up', layer })
  const experts: GatedMlp[] = []
  for (let expert = 0; expert < sizes.numExperts; expert++)
    experts.push(
      await (isFused ? bindFused(binder, layer, expert) : bindMlp(binder, 'expert', layer, expert)),
    )
  const mixture = { gate: { router, topK: sizes.topK, normalize }, experts }
  if (sizes.sharedExpertSize === 0) return mixture
  const mlp = await bindMlp(binder, 'shared_expert', layer)
  const scale = await take({ group: 'shared_expert', part: 'scale', layer })
  return { ...mixture, shared: { mlp, scale } }
}

/** One expert out of tensors that hold all: [E, 2M, H], the gate's rows first, and [E, H, M]. */
async function bindFused(
  { family, config, sizes, takeRows }: Binder,
  layer: number,
  expert: number,
): Promise<GatedMlp> {
  const { expertIntermediateSize: m, hiddenSize: h } = sizes
  const half = (i: number) =>
    takeRows({ group: 'expert', part: 'gate_up', layer }, (2 * expert + i) * m, m, h)
  const gate = await half(0)
  const up = await half(1)
  const down = await takeRows({ group: 'expert', part: 'down', layer }, expert * h, h, m)
  const activation = activationOf(family, config)
  return { gate: { weight: gate }, up: { weight: up }, down: { weight: down }, activation }
}

export function epsOf(family: Family, config: JsonObject): number {
  return Number(field(family, config, 'rms_norm_eps'))
}

const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu',
  gelu_new: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
  relu: 'relu',
}

function activationOf(family: Family, config: JsonObject): Activation {
  const name = String(field(family, config, 'hidden_act'))
  const activation = Object.hasOwn(ACTIVATIONS, name) ? ACTIVATIONS[name] : undefined
  if (activation) return activation
  throw new ModelError({
    code: 'unsupported-activation',
    message: 'The activation of the feed-forward blocks is not supported',
    file: 'config.json',
    expected: `hidden_act one of ${Object.keys(ACTIVATIONS).join(', ')}`,
    received: name,
  })
}
