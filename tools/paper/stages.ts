import { expectedTensors, familyOf } from '@polygraft/architectures'
import {
  applyDelta,
  createDelta,
  dareLinear,
  linear,
  measureMerge,
  ties,
  tiesTargets,
} from '@polygraft/delta'
import { measureTargets } from '@polygraft/engine'
import { graft } from '@polygraft/graft'
import { type Checkpoint, mergeSources, pipe } from '@polygraft/tensor'
import { upcycle } from '@polygraft/upcycle'
import { instructions, rawText, type TrainingStage, trainStage } from './train-stage.js'
import { NEW, ORIGINAL, VOCABULARY, type World } from './world.js'

/** What a stage is made with. `scale` shortens every training; 1 is the experiment. */
interface StageContext {
  readonly seed: number
  readonly world: World
  readonly scale: number
  onStep(step: number, loss: number): void
}

/** A model of the experiment: from which others it is made, and how. Those with a `title` are rows of the table. */
export interface PaperStage {
  readonly name: string
  readonly title?: string
  readonly needs: readonly string[]
  make(inputs: readonly Checkpoint[], context: StageContext): Promise<Checkpoint>
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

/** Every stage in an order in which they can be made. Steps and rates are those of the prototype; a method's own are chosen on 'dev'. */
export const STAGES: readonly PaperStage[] = [
  {
    name: 'base',
    title: 'base',
    needs: [],
    make: (_, context) => {
      const letters = [...ORIGINAL.map((l) => [l, 0.475] as const), ...NEW.map((l) => [l, 0.025] as const)]
      return training('base', 3500, 4e-3, 'sft', (text) => letters.map(([l, share]) => text(l, share)))(
        [random(context.seed)],
        context,
      )
    },
  },
  {
    name: 'instruct',
    title: 'instruct, no CPT',
    needs: ['base'],
    make: training('instruct', 800, 4e-4, 'sft', (text, asked) =>
      ORIGINAL.flatMap((l) => [asked(l, 0.7), text(l, 0.3)]),
    ),
  },
  {
    name: 'dense-cpt',
    title: 'dense CPT',
    needs: ['base'],
    make: training('dense-cpt', 600, 1e-3, 'cpt', (text) => NEW.map((l) => text(l, 1))),
  },
  {
    name: 'param-delta',
    title: 'dense CPT + Δ (ParamΔ)',
    needs: ['dense-cpt', 'base', 'instruct'],
    make: async ([cpt, base, post]) =>
      pipe(cpt!, applyDelta({ delta: createDelta({ base: base!, post: post! }) })),
  },
  {
    name: 'linear',
    title: 'linear 0.5',
    needs: ['dense-cpt', 'instruct'],
    make: async ([cpt, post]) => pipe(cpt!, linear({ models: [{ model: cpt! }, { model: post! }] })),
  },
  {
    name: 'ties',
    title: 'TIES 0.5',
    needs: ['base', 'dense-cpt', 'instruct'],
    async make([base, cpt, post]) {
      const options = { models: [cpt!, post!].map((model) => ({ model, density: 0.5 })) }
      const sources = mergeSources(base!, cpt!, post!)
      const measured = await measureMerge(
        (known) => tiesTargets(base!, { ...options, measured: known }),
        (targets) => measureTargets(targets, sources),
      )
      return pipe(base!, ties({ ...options, measured }))
    },
  },
  {
    name: 'dare',
    title: 'DARE 0.5',
    needs: ['base', 'dense-cpt', 'instruct'],
    make: async ([base, cpt, post], { seed }) =>
      pipe(base!, dareLinear({ models: [cpt!, post!].map((model) => ({ model, density: 0.5 })), seed })),
  },
  {
    name: 'replay-cpt',
    needs: ['base'],
    make: training('replay-cpt', 1002, 1e-3, 'cpt', (text) => [
      ...NEW.map((l) => text(l, 0.45)),
      ...ORIGINAL.map((l) => text(l, 0.05)),
    ]),
  },
  {
    name: 'replay-delta',
    title: 'replay 10 %, FLOP-matched, + Δ',
    needs: ['replay-cpt', 'base', 'instruct'],
    make: async ([cpt, base, post]) =>
      pipe(cpt!, applyDelta({ delta: createDelta({ base: base!, post: post! }) })),
  },
  {
    name: 'moe-cpt',
    needs: ['base'],
    async make([base], context) {
      const moe = pipe(base!, upcycle({ experts: 4, topK: 2, seed: context.seed }))
      return training('moe-cpt', 600, 2e-3, 'cpt', (text) => NEW.map((l) => text(l, 1)), { balance: 0.01 })(
        [moe],
        context,
      )
    },
  },
  {
    name: 'moe-review',
    title: 'MoE + review, no graft',
    needs: ['moe-cpt'],
    make: training(
      'moe-review',
      100,
      1e-2,
      'review',
      (text) => [...ORIGINAL, ...NEW].map((l) => text(l, 1, 64)),
      { lpr: 0.3 },
    ),
  },
  {
    name: 'moe-delta',
    title: 'MoE + Δ, no review',
    needs: ['moe-cpt', 'base', 'instruct'],
    make: async ([cpt, base, post]) => pipe(cpt!, graft({ base: base!, post: post! })),
  },
  {
    name: 'delta-moe',
    title: '**DeltaMoE**',
    needs: ['moe-review', 'base', 'instruct'],
    make: async ([cpt, base, post]) => pipe(cpt!, graft({ base: base!, post: post! })),
  },
  {
    name: 'cpt-sft',
    title: 'dense CPT, then SFT on O (not data-free)',
    needs: ['dense-cpt'],
    make: training('cpt-sft', 800, 4e-4, 'sft', (text, asked) =>
      ORIGINAL.flatMap((l) => [asked(l, 0.7), text(l, 0.3)]),
    ),
  },
  {
    name: 'oracle',
    title: 'oracle: dense CPT, then SFT on O + N',
    needs: ['dense-cpt'],
    make: training('oracle', 800, 4e-4, 'sft', (text, asked) =>
      [...ORIGINAL, ...NEW].flatMap((l) => [asked(l, 0.35), text(l, 0.15)]),
    ),
  },
]

type Data = TrainingStage['data'][number]
type Draw = (letter: 'a' | 'b' | 'c' | 'd', weight: number, count?: number) => Data

const WARMUP = 30
const MAX_DOCUMENTS = 20_000

/** A stage that trains its one input. Documents are drawn anew for each, as many as its share of the steps can use. */
function training(
  name: string,
  fullSteps: number,
  rate: number,
  stage: TrainingStage['stage'],
  dataOf: (text: Draw, asked: Draw) => readonly Data[],
  losses: { readonly balance?: number; readonly lpr?: number } = {},
): PaperStage['make'] {
  return ([input], { seed, world, scale, onStep }) => {
    const steps = Math.max(1, Math.round(fullSteps * scale))
    const enough = Math.min(MAX_DOCUMENTS, steps * 20)
    const data = dataOf(
      (letter, weight, count = enough) => rawText(world, seed, name, letter, count, weight),
      (letter, weight, count = enough) => instructions(world, seed, name, letter, count, weight),
    )
    return trainStage(input!, seed, name, { stage, steps, rate, warmup: WARMUP, data, ...losses }, onStep)
  }
}

/** The model before any training: normal weights, norms of 1. */
function random(seed: number): Checkpoint {
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
