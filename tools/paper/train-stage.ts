import { expectedTensors, familyOf } from '@polygraft/architectures'
import type { Checkpoint } from '@polygraft/tensor'
import {
  createTrainer,
  decoderSpec,
  type LanguageData,
  loadValues,
  runTraining,
  type Sequence,
  type Stage,
  selectTensors,
  trainedCheckpoint,
} from '@polygraft/train'
import { createDraws } from './random.js'
import { DOCUMENT_TOKENS, expertOf, type Letter, NEW, TASKS, type World } from './world.js'

/** A stage of training: what is trained, on what, how long. */
export interface TrainingStage {
  readonly stage: Stage
  readonly steps: number
  readonly rate: number
  readonly warmup: number
  readonly balance?: number
  readonly lpr?: number
  /** Weight of the loss that sends each language to its own expert. */
  readonly language?: number
  /** Patterns of what is trained, in place of the stage's own. */
  readonly train?: readonly string[]
  readonly data: readonly LanguageData[]
}

const BATCH_DOCUMENTS = 16

/** `count` documents of raw text as a language's data. */
export function rawText(
  world: World,
  seed: number,
  name: string,
  letter: Letter,
  count: number,
  weight: number,
): LanguageData {
  const draws = createDraws(seed, `train ${name} ${letter}`)
  const sequences = Array.from({ length: count }, () => sequenceOf(world.document(letter, draws), 0))
  return {
    ...{ language: `${letter} text`, sequences, weight },
    ...{ isOriginal: !NEW.includes(letter), experts: [expertOf(letter)] },
  }
}

/** `count` instructions; the loss is on the answers. */
export function instructions(
  world: World,
  seed: number,
  name: string,
  letter: Letter,
  count: number,
  weight: number,
): LanguageData {
  const draws = createDraws(seed, `train ${name} instructions ${letter}`)
  const sequences = Array.from({ length: count }, () => {
    const { prompt, answer } = world.instruction(letter, draws.pick(TASKS), draws, false)
    return sequenceOf([...prompt, ...answer], prompt.length)
  })
  return { language: `${letter} instructions`, sequences, weight }
}

function sequenceOf(ids: readonly number[], asked: number): Sequence {
  return {
    tokens: Int32Array.from(ids),
    targets: Int32Array.from(ids, (_, i) => (i + 1 < asked ? -1 : (ids[i + 1] ?? -1))),
  }
}

/** Trains `checkpoint` through a stage. Batches of 16 documents of 64 tokens. */
export async function trainStage(
  checkpoint: Checkpoint,
  seed: number,
  name: string,
  training: TrainingStage,
  onStep: (step: number, loss: number) => void,
): Promise<Checkpoint> {
  const { stage, steps, rate, warmup, balance = 0, lpr = 0, language = 0, data, ...selection } = training
  const { config } = checkpoint
  const spec = decoderSpec(config)
  const trainer = createTrainer(
    spec,
    expectedTensors(familyOf(config), config),
    selectTensors(spec, stage, selection),
    {
      ...{ steps, rate, warmup: Math.min(warmup, steps), floor: 0.1, clip: 1 },
      adam: { beta1: 0.9, beta2: 0.98, eps: 1e-8, weightDecay: 0.05 },
      losses: { balance, z: 0, lpr, language },
    },
  )
  await loadValues(checkpoint, trainer.values)
  const batchTokens = BATCH_DOCUMENTS * DOCUMENT_TOKENS
  await runTraining(trainer, data, {
    ...{ steps, seed, batchTokens, accumulation: 1 },
    onStep: ({ step, loss }) => onStep(step, loss),
  })
  const trained = new Map([...trainer.first.keys()].map((tensor) => [tensor, trainer.values.get(tensor)!]))
  return trainedCheckpoint(checkpoint, trained, { op: 'train', stage, name, steps, rate })
}
