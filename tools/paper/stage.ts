import { expectedTensors, familyOf } from '@polygraft/architectures'
import type { Checkpoint } from '@polygraft/tensor'
import { instructions, rawText, type TrainingStage, trainStage } from './train-stage.js'
import { type Letter, VOCABULARY, type World } from './world.js'

/** What a stage is made with. `scale` shortens every training; 1 is the experiment. */
export interface StageContext {
  readonly seed: number
  readonly world: World
  readonly scale: number
  onStep(step: number, loss: number): void
}

/** A model of the experiment: from which others it is made, and how. */
export interface PaperStage {
  readonly name: string
  readonly needs: readonly string[]
  /** Trained models are kept; what is arithmetic is done anew. */
  readonly isTrained: boolean
  make(inputs: readonly Checkpoint[], context: StageContext): Promise<Checkpoint>
}

type Data = TrainingStage['data'][number]
/** Data of a language with its share of the tokens; `count` documents of it, by default as many as the steps can use. */
type Draw = (letter: Letter, share: number, count?: number) => Data

/** How a model is trained. */
export interface Training extends Omit<TrainingStage, 'warmup' | 'data'> {
  /** The texts are drawn by this name: stages that share it see the same. */
  readonly text: string
  data(text: Draw, asked: Draw): readonly Data[]
}

const WARMUP = 30
const MAX_DOCUMENTS = 20_000

/** Trains `input` as `training` says, shortened by the context's scale. */
export function train(
  input: Checkpoint,
  { text, data, ...training }: Training,
  { seed, world, scale, onStep }: StageContext,
): Promise<Checkpoint> {
  const steps = Math.max(1, Math.round(training.steps * scale))
  const enough = Math.min(MAX_DOCUMENTS, steps * 20)
  const drawn = data(
    (letter, share, count = enough) => rawText(world, seed, text, letter, count, share),
    (letter, share, count = enough) => instructions(world, seed, text, letter, count, share),
  )
  return trainStage(input, seed, text, { ...training, steps, warmup: WARMUP, data: drawn }, onStep)
}

/** A stage that trains one other stage's model; `before` is done to it first. */
export function trainedStage(
  name: string,
  from: string,
  training: Training,
  before: (input: Checkpoint, context: StageContext) => Checkpoint | Promise<Checkpoint> = (input) => input,
): PaperStage {
  const make: PaperStage['make'] = async ([input], context) =>
    train(await before(input!, context), training, context)
  return { name, needs: [from], isTrained: true, make }
}

const CONFIG = {
  model_type: 'llama',
  architectures: ['LlamaForCausalLM'],
  vocab_size: 128,
  hidden_size: 64,
  intermediate_size: 192,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 4,
  max_position_embeddings: 256,
  hidden_act: 'silu',
  rms_norm_eps: 1e-5,
  tie_word_embeddings: false,
  torch_dtype: 'float32',
}
const INITIAL_STD = 0.02

/** The model before any training: normal weights, norms of 1. */
export function untrained(seed: number): Checkpoint {
  if (VOCABULARY.length > CONFIG.vocab_size) throw new Error('the vocabulary is larger than the embedding')
  const tensors = [...expectedTensors(familyOf(CONFIG), CONFIG)].map(([name, shape]) => {
    const normal = { op: 'random', distribution: 'normal', scale: INITIAL_STD, seed, name } as const
    const ones = {
      op: 'rows',
      arg: ONE,
      width: 1,
      runs: Array.from({ length: shape[0]! }, () => [0, 1] as const),
    } as const
    return [name, { dtype: 'F32' as const, shape, expr: shape.length > 1 ? normal : ones }] as const
  })
  return {
    config: CONFIG,
    floatFields: ['rms_norm_eps'],
    tensors: new Map(tensors),
    files: new Map(),
    sources: new Map(),
    provenance: { recipe: [], skipped: [] },
  }
}

/** The literal 1. */
const ONE = { op: 'literal', f32: btoa(String.fromCharCode(0, 0, 0x80, 0x3f)) } as const
