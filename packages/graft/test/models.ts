import {
  expandedConfig,
  expectedTensors,
  familyOf,
  moeConfig,
  moeTarget,
  roleOf,
  type TargetName,
} from '@polygraft/architectures'
import { evaluate } from '@polygraft/engine'
import {
  constant,
  deriveExpr,
  insertedFrom,
  insertedLayers,
  layoutOf,
  piecesOf,
  readExpansion,
} from '@polygraft/experts'
import {
  type ByteSource,
  type Checkpoint,
  type Expr,
  type FloatDType,
  type JsonObject,
  literal,
  numel,
  type Tensor,
} from '@polygraft/tensor'
import { formatIndex, layoutShards, openFiles } from '@polygraft/tensor-io'

/** Changes the stored bytes of a tensor in place. */
export type Edit = (name: string, bytes: Uint8Array, dtype: FloatDType) => void

export interface StoreOptions {
  readonly edit?: Edit
  readonly config?: JsonObject
  readonly files?: Readonly<Record<string, string>>
  /** Default: one file. */
  readonly maxShardBytes?: number
}

const SIZES = {
  vocab_size: 10,
  hidden_size: 8,
  intermediate_size: 6,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 4,
}

/** A dense model at a tiny size with random weights of ordinary magnitude, held in memory in the files' format. */
export function denseModel(
  modelType: string,
  seed: number,
  {
    config = {},
    files = {},
    dtype = 'BF16',
  }: Omit<StoreOptions, 'edit'> & { readonly dtype?: FloatDType } = {},
): Promise<Checkpoint> {
  const whole: JsonObject = { model_type: modelType, torch_dtype: 'bfloat16', ...SIZES, ...config }
  const shapes = expectedTensors(familyOf(whole), whole)
  const tensors = [...shapes].map(([name, shape]): [string, Tensor] => [
    name,
    { dtype, shape, expr: NOTHING },
  ])
  return store(
    {
      config: whole,
      tensors: new Map(tensors),
      files: new Map(),
      sources: new Map(),
      provenance: { recipe: [], skipped: [] },
    },
    { files, edit: draw(seed) },
  )
}

const NOTHING = literal(new Float32Array(0))

/** Writes a checkpoint into memory and opens it again. */
export async function store(checkpoint: Checkpoint, options: StoreOptions = {}): Promise<Checkpoint> {
  const { edit, maxShardBytes = Number.POSITIVE_INFINITY, config = checkpoint.config } = options
  const layouts = layoutShards(checkpoint.tensors, maxShardBytes)
  const files = new Map<string, ByteSource>(checkpoint.files)
  for (const { file, header, tensors, size } of layouts) {
    const bytes = new Uint8Array(size)
    bytes.set(header)
    for (const [name, { begin, end }] of tensors) {
      const part = bytes.subarray(begin, end)
      const tensor = checkpoint.tensors.get(name)!
      if (tensor.expr !== NOTHING) part.set(await evaluate(tensor, checkpoint.sources))
      edit?.(name, part, tensor.dtype as FloatDType)
    }
    files.set(file, new Blob([bytes]))
  }
  const { recipe, skipped, experts } = checkpoint.provenance
  const manifest = { polygraft: { version: '0' }, recipe, skipped, ...(experts ? { experts } : {}) }
  const texts = {
    'config.json': JSON.stringify(config),
    'polygraft.json': JSON.stringify(manifest),
    ...(layouts.length > 1 ? { 'model.safetensors.index.json': formatIndex(layouts) } : {}),
    ...options.files,
  }
  for (const [name, text] of Object.entries(texts)) files.set(name, new Blob([text]))
  return openFiles(files, 'memory')
}

export interface MixtureOptions {
  /** Changes of the config. */
  readonly change?: JsonObject
  readonly target?: TargetName
  /** Fields of the recipe's step: granularity, denseLayers, sharedExpert, expertInit, ... */
  readonly step?: JsonObject
}

/** A symbolic mixture of `experts` copies of `dense`, its routers drawn by name. */
export function mixtureOf(
  dense: Checkpoint,
  experts: number,
  { change = {}, target = 'auto', step = {} }: MixtureOptions = {},
): Checkpoint {
  const family = moeTarget(familyOf(dense.config), dense.config, target)
  const recipe = [
    ...dense.provenance.recipe,
    { op: 'upcycle', inputs: { base: [...dense.sources.keys()][0]! }, experts, ...step },
  ]
  const counts = { numExperts: experts, topK: Math.min(2, experts) }
  const config = { ...moeConfig(dense.config, family, { ...step, ...counts }), ...change }
  const layout = layoutOf(config, dense.config, { ...readExpansion([recipe.at(-1)!]) })
  const tensors = [...expectedTensors(family, config)].map(([name, shape]): [string, Tensor] => {
    const pieces = piecesOf(layout, name)
    const exprs = pieces.map((piece) => deriveExpr(layout, piece, dense.tensors.get(piece.dense)!.expr))
    const dtype = dense.tensors.get('model.norm.weight')!.dtype
    if (exprs.length === 1) return [name, { dtype, shape, expr: exprs[0]! }]
    const sizes = exprs.map(() => numel(shape) / exprs.length)
    if (exprs.length > 1) return [name, { dtype, shape, expr: { op: 'concat', args: exprs, sizes } }]
    if (roleOf(family, name).group !== 'router')
      return [name, { dtype, shape, expr: constant(0, numel(shape)) }]
    const drawn: Expr = { op: 'random', distribution: 'normal', scale: 0.5, seed: 0, name }
    const g = layout.expansion.granularity
    const runs = Array.from({ length: shape[0]! }, (_, e) => [Math.floor(e / g), 1] as const)
    return [
      name,
      { dtype, shape, expr: g === 1 ? drawn : { op: 'rows', arg: drawn, width: shape[1]!, runs } },
    ]
  })
  return { ...dense, config, tensors: new Map(tensors), provenance: { recipe, skipped: [] } }
}

/** Fraction bits, and a range of biased exponents around 1, by dtype. */
const FORMATS: Readonly<Record<FloatDType, { fraction: number; exponent: number; bytes: number }>> = {
  BF16: { fraction: 7, exponent: 120, bytes: 2 },
  F16: { fraction: 10, exponent: 8, bytes: 2 },
  F32: { fraction: 23, exponent: 120, bytes: 4 },
  F64: { fraction: 52, exponent: 1016, bytes: 8 },
}

/** Random values of magnitudes from 2^-7 to 2^1. */
function draw(seed: number): Edit {
  return (name, bytes, dtype) => {
    const { fraction, exponent, bytes: width } = FORMATS[dtype]
    const random = randomOf(seed, name)
    eachElement(bytes, width, () => {
      const magnitude = ((exponent + (random() % 8)) * 2 ** fraction) % 2 ** (8 * width - 1)
      return (random() % 2) * 2 ** (8 * width - 1) + magnitude + (random() % 2 ** Math.min(fraction, 30))
    })
  }
}

/** Changes about `share` of the elements of tensors that `wanted` picks, by a few per cent and in sign at times. */
export function perturb(seed: number, share: number, wanted: (name: string) => boolean = () => true): Edit {
  return (name, bytes, dtype) => {
    if (!wanted(name)) return
    const { fraction, bytes: width } = FORMATS[dtype]
    const random = randomOf(seed, name)
    eachElement(bytes, width, (bits) => {
      if (random() % 1000 >= share * 1000) return bits
      const low = 2 ** Math.min(fraction, 20)
      return bits - (bits % low) + (random() % low)
    })
  }
}

function eachElement(bytes: Uint8Array, width: number, change: (bits: number) => number): void {
  if (width > 4) throw new Error('no 64-bit elements here')
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (let at = 0; at < bytes.length; at += width) {
    if (width === 2) view.setUint16(at, change(view.getUint16(at, true)), true)
    else view.setUint32(at, change(view.getUint32(at, true)), true)
  }
}

/** Whole numbers from 0 to 2^31 - 2, different for each name. */
function randomOf(seed: number, name: string): () => number {
  let state = (seed * 7919 + 12345) % 2147483647
  for (const letter of name) state = (state * 31 + letter.charCodeAt(0)) % 2147483647
  state = Math.max(1, state)
  return () => {
    state = (state * 16807) % 2147483647
    return state
  }
}

/** The stored bytes of a tensor. */
export function bytesOf(checkpoint: Checkpoint, name: string): Promise<Uint8Array> {
  return evaluate(checkpoint.tensors.get(name)!, checkpoint.sources)
}

/** Every tensor's dtype, shape and bytes, for comparing whole checkpoints. */
export async function contentOf(checkpoint: Checkpoint): Promise<Record<string, string>> {
  const content: Record<string, string> = {}
  for (const [name, { dtype, shape }] of checkpoint.tensors)
    content[name] = `${dtype} [${shape}] ${Buffer.from(await bytesOf(checkpoint, name)).toString('hex')}`
  return content
}

/** The values of a tensor, as it is stored. */
export async function valuesOf(checkpoint: Checkpoint, name: string): Promise<Float32Array> {
  const { shape, dtype, expr } = checkpoint.tensors.get(name)!
  const stored = { op: 'cast', dtype: dtype as FloatDType, arg: expr } as const
  const bytes = await evaluate({ dtype: 'F32', shape, expr: stored }, checkpoint.sources)
  return new Float32Array(bytes.buffer)
}

export const tokenizer = (...tokens: (string | undefined)[]) => ({
  'tokenizer.json': JSON.stringify({
    model: {
      vocab: Object.fromEntries(tokens.flatMap((token, id) => (token === undefined ? [] : [[token, id]]))),
    },
  }),
})

/** An F32 value to the nearest BF16, ties to even. */
export function roundToBf16(value: number): number {
  const view = new DataView(new ArrayBuffer(4))
  view.setFloat32(0, value)
  const bits = view.getUint32(0)
  view.setUint32(0, bits + 0x7fff + ((bits >>> 16) & 1))
  view.setUint16(2, 0)
  return view.getFloat32(0)
}

/** `dense` with a layer that adds nothing after each of `after`. */
export function expandedOf(dense: Checkpoint, after: readonly number[]): Checkpoint {
  const { config } = dense
  const layers = config.num_hidden_layers as number
  const step = { op: 'expand', inputs: { base: [...dense.sources.keys()][0]! }, after, layers }
  const expanded = expandedConfig(config, insertedLayers(layers, after))
  const layout = layoutOf(expanded, config, readExpansion([step]))
  const names = [...expectedTensors(layout.family, expanded).keys()]
  const tensors = names.map((name): [string, Tensor] => {
    const from = insertedFrom(layout, name)
    const tensor = dense.tensors.get(from?.dense ?? piecesOf(layout, name)[0]!.dense)!
    return [name, from?.isZero ? { ...tensor, expr: constant(0, numel(tensor.shape)) } : tensor]
  })
  const recipe = [...dense.provenance.recipe, step]
  return { ...dense, config: expanded, tensors: new Map(tensors), provenance: { recipe, skipped: [] } }
}
