import {
  breadcrumbs,
  breadcrumbsTargets,
  createDelta,
  dareLinear,
  della,
  dellaTargets,
  linear,
  type Measures,
  type MergeTargets,
  measureMerge,
  modelStock,
  modelStockTargets,
  paramDelta,
  reAdapt,
  slerp,
  slerpTargets,
  ties,
  tiesTargets,
} from '@polygraft/delta'
import { measureTargets } from '@polygraft/engine'
import { type GraftSettings, graft } from '@polygraft/graft'
import { type Checkpoint, mergeSources, type Op, pipe } from '@polygraft/tensor'
import { WIDE_FACTOR } from './models.js'
import type { PaperStage, StageContext } from './stage.js'
import { widen } from './widen.js'

/*
 * Every model that is arithmetic on trained ones, with the values of its own parameter that are tried on the development split.
 */

/** A merge of the dense pre-trained model and the instruct model. */
type Merge = (base: Checkpoint, cpt: Checkpoint, post: Checkpoint, seed: number) => Promise<Checkpoint>

function merge(name: string, make: Merge): PaperStage {
  return {
    name,
    needs: ['base', 'dense-cpt', 'instruct'],
    isTrained: false,
    make: ([base, cpt, post], { seed }) => make(base!, cpt!, post!, seed),
  }
}

/** Measures what the merge asks for, then merges. */
async function measured<Options extends object>(
  target: Checkpoint,
  options: Options,
  targets: (target: Checkpoint, options: Options & { measured: Measures }) => MergeTargets,
  op: (options: Options & { measured: Measures }) => Op,
  others: readonly Checkpoint[],
): Promise<Checkpoint> {
  const sources = mergeSources(target, ...others)
  const found = await measureMerge(
    (known) => targets(target, { ...options, measured: known }),
    (wanted) => measureTargets(wanted, sources),
  )
  return pipe(target, op({ ...options, measured: found }))
}

const both = <Extra extends object>(cpt: Checkpoint, post: Checkpoint, extra: Extra) =>
  [cpt, post].map((model) => ({ model, ...extra }))

/** theta_cpt + lambda (theta_i - theta_b) for a dense model, graft for all else. */
function grafted(
  name: string,
  cpt: string,
  settings: GraftSettings = {},
  post = 'instruct',
  before: (model: Checkpoint, context: StageContext) => Checkpoint = (model) => model,
): PaperStage {
  return {
    name,
    needs: [cpt, 'base', post],
    isTrained: false,
    async make([trained, base, instruct], context) {
      const pair = { base: before(base!, context), post: before(instruct!, context) }
      const isDense = trained!.config.model_type === 'llama' && !trained!.provenance.recipe.some(isExpansion)
      return isDense
        ? pipe(trained!, paramDelta({ ...pair, lambda: settings.lambda ?? 1 }))
        : pipe(trained!, graft({ ...pair, ...settings }))
    },
  }
}

const isExpansion = ({ op }: { readonly op?: unknown }) => op === 'expand'

const LAMBDAS = [0.5, 0.75, 1, 1.25]
/** One stage for each lambda, the method's own 1 under its bare name. */
const withLambdas = (...[name, cpt, settings, post, before]: Parameters<typeof grafted>) =>
  LAMBDAS.map((lambda) =>
    grafted(lambda === 1 ? name : `${name}-${lambda}`, cpt, { ...settings, lambda }, post, before),
  )

const SHARES = [0.25, 0.5, 0.75]
const DENSITIES = [0.2, 0.5, 0.8]
const FACTORS = [1, 2]
const pairs = <A, B>(as: readonly A[], bs: readonly B[]) => as.flatMap((a) => bs.map((b) => [a, b] as const))

const MERGES = [
  ...SHARES.map((t) =>
    merge(`linear-${t}`, async (_, cpt, post) =>
      pipe(
        cpt,
        linear({
          models: [
            { model: cpt, weight: 1 - t },
            { model: post, weight: t },
          ],
        }),
      ),
    ),
  ),
  ...SHARES.map((t) =>
    merge(`slerp-${t}`, (_, cpt, post) =>
      measured(cpt, { models: [{ model: post }], t }, slerpTargets, slerp, [post]),
    ),
  ),
  ...pairs(DENSITIES, FACTORS).map(([density, lambda]) =>
    merge(`ties-${density}-${lambda}`, (base, cpt, post) =>
      measured(base, { models: both(cpt, post, { density }), lambda }, tiesTargets, ties, [cpt, post]),
    ),
  ),
  ...[0.5, 0.8, 0.9].map((density) =>
    merge(`dare-${density}`, async (base, cpt, post, seed) =>
      pipe(base, dareLinear({ models: both(cpt, post, { density }), seed })),
    ),
  ),
  ...pairs([0.5, 0.8], FACTORS).map(([density, lambda]) =>
    merge(`della-${density}-${lambda}`, (base, cpt, post, seed) =>
      measured(base, { models: both(cpt, post, { density }), lambda, seed }, dellaTargets, della, [
        cpt,
        post,
      ]),
    ),
  ),
  ...pairs([0.5, 0.8, 0.95], [0.01]).map(([density, gamma]) =>
    merge(`breadcrumbs-${density}`, (base, cpt, post) =>
      measured(base, { models: both(cpt, post, { density, gamma }) }, breadcrumbsTargets, breadcrumbs, [
        cpt,
        post,
      ]),
    ),
  ),
  ...(['tensor', 'rows'] as const).map((grain) =>
    merge(`model-stock-${grain}`, (base, cpt, post) =>
      measured(base, { models: both(cpt, post, {}), grain }, modelStockTargets, modelStock, [cpt, post]),
    ),
  ),
  ...[0.25, 0.5, 0.75].map((alpha) =>
    merge(`re-adapt-${alpha}`, async (base, cpt, post) =>
      pipe(
        base,
        reAdapt({
          knowledge: createDelta({ base, post: cpt }),
          instruct: createDelta({ base, post }),
          alpha,
        }),
      ),
    ),
  ),
]

/** `post` with base's values but in the tensors that `pattern` names. */
function partOf(pattern: RegExp) {
  return ([trained, base, post]: readonly Checkpoint[]): Checkpoint => {
    const tensors = [...post!.tensors].map(
      ([name, tensor]) => [name, pattern.test(name) ? tensor : base!.tensors.get(name)!] as const,
    )
    const mixed = { ...post!, tensors: new Map(tensors), sources: mergeSources(base!, post!) }
    return pipe(trained!, graft({ base: base!, post: mixed }))
  }
}

function partial(name: string, pattern: RegExp): PaperStage {
  return {
    name,
    needs: ['moe-review', 'base', 'instruct'],
    isTrained: false,
    make: async (inputs) => partOf(pattern)(inputs),
  }
}

const NONE_ON_NEW = new Map([1, 2, 3].map((expert) => [expert, 0]))
const MORE_ON_NEW = new Map([1, 2, 3].map((expert) => [expert, 1.25]))
const LATER = new Map([0.8, 0.95, 1.05, 1.2].map((factor, layer) => [layer, factor]))
const EARLIER = new Map([1.2, 1.05, 0.95, 0.8].map((factor, layer) => [layer, factor]))

const ABLATIONS = [
  grafted('moe-delta', 'moe-cpt'),
  partial('graft-ffn', /mlp\./),
  partial('graft-not-ffn', /^(?!.*mlp\.)/),
  partial('graft-attention', /self_attn\./),
  partial('graft-not-vocabulary', /^model\.layers\.|^model\.norm/),
  grafted('graft-first-expert', 'moe-review', { expertLambda: NONE_ON_NEW }),
  grafted('graft-fold', 'moe-review', { foldRouter: true }),
  grafted('graft-more-on-new', 'moe-review', { expertLambda: MORE_ON_NEW }),
  grafted('graft-later', 'moe-review', { layerLambda: LATER }),
  grafted('graft-earlier', 'moe-review', { layerLambda: EARLIER }),
  ...['no-lpr', 'lpr-1', '30', '300', 'all', '2-experts', 'orthogonal', 'top-1', 'by-language'].map((id) =>
    grafted(`delta-moe-${id}`, `moe-review-${id}`),
  ),
  ...['weak', 'strong'].flatMap((id) => [
    grafted(`param-delta-${id}`, `dense-cpt-${id}`),
    grafted(`delta-moe-${id}`, `moe-review-${id}`),
  ]),
  grafted('delta-moe-half', 'moe-review', {}, 'instruct-half'),
  grafted('param-delta-half', 'dense-cpt', {}, 'instruct-half'),
]

/** Every model that arithmetic makes. */
export const GRAFTS: readonly PaperStage[] = [
  ...withLambdas('param-delta', 'dense-cpt'),
  ...MERGES,
  ...withLambdas('replay-delta', 'replay-cpt'),
  ...withLambdas('llama-pro', 'llama-pro-cpt'),
  ...withLambdas('wide', 'wide-cpt', {}, 'instruct', (model, { seed }) => widen(model, WIDE_FACTOR, seed)),
  ...withLambdas('btx-delta', 'btx'),
  ...withLambdas('delta-moe', 'moe-review'),
  ...ABLATIONS,
]
