import { pipe } from '@polygraft/tensor'
import { expand, type UpcycleOptions, upcycle } from '@polygraft/upcycle'
import { startByLanguage } from './language-start.js'
import { type PaperStage, type Training, train, trainedStage, untrained } from './stage.js'
import { widen } from './widen.js'
import { NEW, ORIGINAL } from './world.js'

/*
 * Every model that is trained. Steps and rates are those of the prototype; how hard continued pre-training hits is varied on its own.
 */

const BASE: Training = {
  ...{ text: 'base', stage: 'sft', steps: 3500, rate: 4e-3 },
  data: (text) => [...ORIGINAL.map((l) => text(l, 0.475)), ...NEW.map((l) => text(l, 0.025))],
}

/** Instructions in the original languages; a share of the steps goes to raw text. */
const instructed = (rawShare: number): Training => ({
  ...{ text: 'instruct', stage: 'sft', steps: 800, rate: 4e-4 },
  data: (text, asked) => ORIGINAL.flatMap((l) => [asked(l, 1 - rawShare), text(l, rawShare)]),
})
const RAW_SHARE = 0.3

const DENSE_CPT: Training = {
  ...{ text: 'dense-cpt', stage: 'cpt', steps: 600, rate: 1e-3 },
  data: (text) => NEW.map((l) => text(l, 1)),
}

/** As many floating-point operations as the mixture's 600 steps. */
const REPLAY_CPT: Training = {
  ...{ text: 'replay-cpt', stage: 'cpt', steps: 1002, rate: 1e-3 },
  data: (text) => [...NEW.map((l) => text(l, 0.45)), ...ORIGINAL.map((l) => text(l, 0.05))],
}

const MOE_CPT: Training = {
  ...{ text: 'moe-cpt', stage: 'cpt', steps: 600, rate: 2e-3, balance: 0.01 },
  data: (text) => NEW.map((l) => text(l, 1)),
}

const REVIEW_DOCUMENTS = 64
const REVIEW: Training = {
  ...{ text: 'moe-review', stage: 'review', steps: 100, rate: 1e-2, lpr: 0.3 },
  data: (text) => [...ORIGINAL, ...NEW].map((l) => text(l, 1, REVIEW_DOCUMENTS)),
}

/** Weaker and stronger continued pre-training: factors on steps and rate. */
const STRENGTHS = {
  weak: { steps: 0.5, rate: 0.5 },
  strong: { steps: 1, rate: 2 },
} as const

const stronger = (training: Training, { steps, rate }: { steps: number; rate: number }): Training => ({
  ...training,
  steps: training.steps * steps,
  rate: training.rate * rate,
})

/** A mixture: upcycled, trained on the new languages, reviewed. `id` is '' for the method as it is. */
interface Mixture {
  readonly id: string
  readonly from?: string
  readonly experts?: number
  readonly topK?: number
  readonly router?: UpcycleOptions['router']
  readonly byLanguage?: boolean
  readonly cpt?: Partial<Training>
  readonly review?: Partial<Training>
}

function mixture({ id, from = 'base', experts = 4, topK = 2, router = 'xavier', ...rest }: Mixture) {
  const { byLanguage = false, cpt, review } = rest
  const options = { experts, topK, router }
  const cptStage = trainedStage(`moe-cpt${id}`, from, { ...MOE_CPT, ...cpt }, (base, context) => {
    const moe = pipe(base, upcycle({ ...options, seed: context.seed }))
    return byLanguage ? startByLanguage(moe, base, context) : moe
  })
  const reviewStage = trainedStage(`moe-review${id}`, cptStage.name, { ...REVIEW, ...review })
  return [cptStage, reviewStage]
}

/** Only the review of the method's own mixture is another. */
const reviewed = (id: string, review: Partial<Training>) =>
  trainedStage(`moe-review${id}`, 'moe-cpt', { ...REVIEW, ...review })

/** Branch-Train-MiX (arXiv:2403.07816): one dense model for each new language, trained apart, then mixed; the steps of dense CPT together. */
const branch = (letter: 'c' | 'd') =>
  trainedStage(`branch-${letter}`, 'base', {
    ...{ ...DENSE_CPT, text: `branch-${letter}`, steps: 300 },
    data: (text) => [text(letter, 1)],
  })

const BTX: PaperStage = {
  name: 'btx',
  needs: ['base', 'branch-c', 'branch-d'],
  isTrained: true,
  make([base, c, d], context) {
    const expertsFrom = new Map([
      [1, c!],
      [2, d!],
    ])
    const options = { experts: 3, topK: 2, expertsFrom, others: 'mean', seed: context.seed } as const
    return train(pipe(base!, upcycle(options)), REVIEW, context)
  },
}

/** In place of balance: each language to its own expert. */
const LANGUAGE_LOSS = { cpt: { balance: 0, language: 0.1 }, review: { lpr: 0, language: 0.3 } }

/** As many parameters as the mixture: 8 inserted blocks of 53,248 against 4 layers x 3 experts of 36,864. */
const INSERTED_BLOCKS = 8
const insertedLayers = [1, 2, 4, 5, 7, 8, 10, 11].map((layer) => `model.layers.${layer}.*`)
/** The mixture's experts as one feed-forward block. */
export const WIDE_FACTOR = 4

/** Every trained model, in an order in which they can be made. */
export const MODELS: readonly PaperStage[] = [
  {
    name: 'base',
    needs: [],
    isTrained: true,
    make: (_, context) => train(untrained(context.seed), BASE, context),
  },
  trainedStage('instruct', 'base', instructed(RAW_SHARE)),
  trainedStage('dense-cpt', 'base', DENSE_CPT),
  ...mixture({ id: '' }),
  trainedStage('replay-cpt', 'base', REPLAY_CPT),
  trainedStage('cpt-sft', 'dense-cpt', { ...instructed(RAW_SHARE), text: 'cpt-sft' }),
  trainedStage('oracle', 'dense-cpt', {
    ...{ ...instructed(RAW_SHARE), text: 'oracle' },
    data: (text, asked) => [...ORIGINAL, ...NEW].flatMap((l) => [asked(l, 0.35), text(l, 0.15)]),
  }),
  trainedStage(
    'llama-pro-cpt',
    'base',
    { ...DENSE_CPT, text: 'llama-pro-cpt', rate: 2e-3, train: insertedLayers },
    (base) => pipe(base, expand({ blocks: INSERTED_BLOCKS })),
  ),
  {
    name: 'wide-cpt',
    needs: ['base'],
    isTrained: true,
    make: ([base], context) =>
      train(widen(base!, WIDE_FACTOR, context.seed), { ...DENSE_CPT, text: 'wide-cpt' }, context),
  },
  ...mixture({ id: '-instruct', from: 'instruct' }),
  branch('c'),
  branch('d'),
  BTX,
  // How hard continued pre-training hits.
  ...Object.entries(STRENGTHS).flatMap(([id, factors]) => [
    trainedStage(`dense-cpt-${id}`, 'base', stronger(DENSE_CPT, factors)),
    ...mixture({ id: `-${id}`, cpt: stronger(MOE_CPT, factors) }),
  ]),
  // What the method is made of.
  reviewed('-no-lpr', { lpr: 0 }),
  reviewed('-lpr-1', { lpr: 1 }),
  reviewed('-30', { steps: 30 }),
  reviewed('-300', { steps: 300 }),
  ...mixture({ id: '-all', cpt: { train: ['*'] } }),
  ...mixture({ id: '-2-experts', experts: 2 }),
  ...mixture({ id: '-orthogonal', router: 'orthogonal' }),
  // What was tried to make it better.
  ...mixture({ id: '-top-1', experts: 3, topK: 1, byLanguage: true, ...LANGUAGE_LOSS }),
  ...mixture({ id: '-by-language', experts: 3, byLanguage: true, ...LANGUAGE_LOSS }),
  trainedStage('instruct-half', 'base', instructed(0.5)),
]
