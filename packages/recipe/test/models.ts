import { expectedTensors, familyOf } from '@polygraft/architectures'
import { evaluate } from '@polygraft/engine'
import { type Checkpoint, type JsonObject, numel } from '@polygraft/tensor'
import { formatSafetensors, openFiles } from '@polygraft/tensor-io'

const TINY: JsonObject = {
  model_type: 'llama',
  architectures: ['LlamaForCausalLM'],
  vocab_size: 6,
  hidden_size: 4,
  intermediate_size: 6,
  num_hidden_layers: 3,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 2,
  rms_norm_eps: 1e-5,
  torch_dtype: 'float32',
}

export interface TinyOptions {
  readonly config?: JsonObject
  /** A tokenizer of these tokens, in the order of their ids; those in angle brackets are added ones. */
  readonly tokens?: readonly string[]
  readonly files?: Readonly<Record<string, string>>
  readonly location?: string
}

/** A model in memory, F32, whose values follow from the seed. */
export function tinyModel(
  seed: number,
  { config, tokens, files = {}, location }: TinyOptions = {},
): Promise<Checkpoint> {
  const whole = {
    ...TINY,
    ...(tokens && !config?.vocab_size ? { vocab_size: tokens.length } : {}),
    ...config,
  }
  let state = seed * 7919 + 13
  const next = () => {
    state = (state * 16807) % 2147483647
    return (state % 2001) / 1000 - 1
  }
  const shapes = [...expectedTensors(familyOf(whole), whole)]
  const { header } = formatSafetensors(shapes.map(([name, shape]) => [name, { dtype: 'F32', shape }]))
  const data = shapes
    .map(([name, shape]) => [name, Float32Array.from({ length: numel(shape) }, next)] as const)
    .sort(([a], [b]) => (a < b ? -1 : 1))
  const weights = new Blob([header, ...data.map(([, values]) => values)])
  const texts = { ...(tokens ? { 'tokenizer.json': JSON.stringify(tokenizer(tokens)) } : {}), ...files }
  return openFiles(
    new Map([
      ['model.safetensors', weights],
      ['config.json', new Blob([JSON.stringify(whole)])],
      ...Object.entries(texts).map(([name, text]) => [name, new Blob([text])] as const),
    ]),
    location ?? `memory ${seed}`,
  )
}

function tokenizer(tokens: readonly string[]): JsonObject {
  const isAdded = (token: string) => token.startsWith('<')
  const vocab = tokens.flatMap((token, id) => (isAdded(token) ? [] : [[token, id] as const]))
  const settings = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }
  const added = tokens.flatMap((content, id) => (isAdded(content) ? [{ id, content, ...settings }] : []))
  return {
    version: '1.0',
    added_tokens: added,
    pre_tokenizer: { type: 'WhitespaceSplit' },
    model: { type: 'WordLevel', vocab: Object.fromEntries(vocab), unk_token: '<unk>' },
  }
}

/** Writes a checkpoint into memory and opens it again. */
export async function store(checkpoint: Checkpoint): Promise<Checkpoint> {
  const { header, tensors, size } = formatSafetensors(checkpoint.tensors)
  const bytes = new Uint8Array(size)
  bytes.set(header)
  for (const [name, { begin }] of tensors)
    bytes.set(await evaluate(checkpoint.tensors.get(name)!, checkpoint.sources), begin)
  const { recipe, skipped, experts } = checkpoint.provenance
  const manifest = { polygraft: { version: '0' }, recipe, skipped, ...(experts ? { experts } : {}) }
  const files = new Map(checkpoint.files)
  files.set(`${checkpoint.weightsName ?? 'model'}.safetensors`, new Blob([bytes]))
  files.set('config.json', new Blob([JSON.stringify(checkpoint.config)]))
  files.set('polygraft.json', new Blob([JSON.stringify(manifest)]))
  return openFiles(files, 'memory')
}

/** Every tensor as it would be stored: dtype, shape, bytes. */
export async function contentOf({ tensors, sources }: Checkpoint) {
  const entries = [...tensors].map(async ([name, tensor]) => {
    const bytes = [...(await evaluate(tensor, sources))]
    return [name, { dtype: tensor.dtype, shape: tensor.shape, bytes }] as const
  })
  return Object.fromEntries(await Promise.all(entries))
}

/** The values of one tensor, evaluated by the engine in F32. */
async function valuesOf(checkpoint: Checkpoint, name: string): Promise<number[]> {
  const tensor = checkpoint.tensors.get(name)
  if (!tensor) throw new Error(`no tensor ${name}`)
  const bytes = await evaluate({ ...tensor, dtype: 'F32' }, checkpoint.sources)
  return [...new Float32Array(bytes.buffer)]
}

/** Row `row` of a matrix. */
export async function rowOf(checkpoint: Checkpoint, name: string, row: number): Promise<number[]> {
  const width = checkpoint.tensors.get(name)!.shape[1]!
  return (await valuesOf(checkpoint, name)).slice(row * width, (row + 1) * width)
}

/** A LoRA adapter of rank 1 and alpha 2 for one module [rows, width], with A and B counting from 0. */
export function tinyAdapter(module: string, [rows, width]: readonly [number, number]): Promise<Checkpoint> {
  const data = [
    [`base_model.model.${module}.lora_A.weight`, [1, width]],
    [`base_model.model.${module}.lora_B.weight`, [rows, 1]],
  ] as const
  const { header } = formatSafetensors(data.map(([name, shape]) => [name, { dtype: 'F32', shape }]))
  const weights = new Blob([
    header,
    ...data.map(([, shape]) => Float32Array.from({ length: numel(shape) }, (_, i) => i)),
  ])
  const config = { peft_type: 'LORA', r: 1, lora_alpha: 2, target_modules: [module.split('.').at(-1)!] }
  const files = [
    ['adapter_model.safetensors', weights],
    ['adapter_config.json', new Blob([JSON.stringify(config)])],
  ] as const
  return openFiles(new Map<string, Blob>(files), `adapter ${rows}`)
}
