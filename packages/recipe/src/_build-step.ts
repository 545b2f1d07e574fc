import {
  applyDelta,
  createAdapter,
  createDelta,
  deltaProblems,
  type LowRankOptions,
  lowRankTargets,
  readVocabularies,
  scaleDelta,
  truncateDelta,
} from '@polygraft/delta'
import { type GraftOptions, graft, graftProblems, graftWarnings } from '@polygraft/graft'
import { type Checkpoint, mergeSources, pipe, throwIfAny } from '@polygraft/tensor'
import {
  dropTargets,
  expand,
  type UpcycleOptions,
  upcycle,
  upcycleProblems,
  upcycleWarnings,
} from '@polygraft/upcycle'
import { adapted } from './_adapted.js'
import type { MergeEnvironment } from './_merge-environment.js'
import { type BuiltMerge, buildMerge } from './build-merge.js'
import type { PlannedStep } from './pipeline.js'

type Body = PlannedStep['body']
type BodyOf<Op extends Body['op']> = Extract<Body, { op: Op }>

/** What a step is built from. */
interface Context {
  readonly environment: MergeEnvironment
  /** The checkpoint under a key that holds a reference. */
  input(key: string): Checkpoint
  /** The same, where the key may be left out. */
  find(key: string): Checkpoint | undefined
}

/** Builds a step, its inputs being among the models of the environment under their names. */
export function buildStep({ body, inputs }: PlannedStep, environment: MergeEnvironment): Promise<BuiltMerge> {
  const find = (key: string) => {
    const name = inputs[key]
    return name === undefined ? undefined : environment.models.get(name)
  }
  const builder = BUILDERS[body.op] as (body: Body, context: Context) => Promise<BuiltMerge>
  return builder(body, { environment, input: (key) => find(key)!, find })
}

const BUILDERS: { readonly [Op in Body['op']]: (body: BodyOf<Op>, context: Context) => Promise<BuiltMerge> } =
  {
    merge: ({ plan }, { environment }) => buildMerge(plan, environment),
    upcycle: buildUpcycle,
    async expand({ blocks }, { input }) {
      return plain(pipe(input('model'), expand({ blocks })))
    },
    graft: buildGraft,
    async delta({ scale }, { input, environment }) {
      const pair = { base: input('base'), post: input('post') }
      const options = { ...pair, vocabularies: await readVocabularies(pair), force: environment.force }
      throwIfAny(deltaProblems(options))
      const delta = createDelta(options)
      return plain(scale === undefined ? delta : pipe(delta, scaleDelta(scale)))
    },
    async apply({ lambda = 1 }, { input }) {
      return plain(pipe(input('model'), applyDelta({ delta: input('delta'), lambda })))
    },
    async loraApply({ scale = 1 }, { input, environment }) {
      return adapted(input('model'), input('adapter'), scale, environment.measuring)
    },
    async truncate(body, context) {
      return plain(truncateDelta(context.input('delta'), await lowRankOf(body, context)))
    },
    async loraExtract(body, context) {
      const { dtype, baseName: base } = body
      const factors = await lowRankOf(body, context)
      return plain(createAdapter({ delta: context.input('delta'), factors, ...given({ dtype, base }) }))
    },
  }

function plain(checkpoint: Checkpoint): BuiltMerge {
  return { checkpoint, warnings: [] }
}

async function buildUpcycle(
  { op: _, id: _id, model: _model, expertsFrom = {}, expertInit, ...rest }: BodyOf<'upcycle'>,
  { input, environment: { measuring } }: Context,
): Promise<BuiltMerge> {
  const base = input('model')
  const experts = Object.keys(expertsFrom).map((e) => [Number(e), input(`expertsFrom ${e}`)] as const)
  const options: UpcycleOptions = {
    ...given(rest),
    ...(expertInit ? { expertInit } : {}),
    ...(experts.length > 0 ? { expertsFrom: new Map(experts) } : {}),
  }
  throwIfAny(upcycleProblems(base, options))
  const warnings = upcycleWarnings(options)
  if (expertInit?.kind !== 'drop') return { checkpoint: pipe(base, upcycle(options)), warnings }
  const sources = mergeSources(base, ...experts.map(([, model]) => model))
  const statistics = await measuring.statistics(dropTargets(base, options), sources)
  const measured = { ...options, expertInit: { ...expertInit, statistics } }
  return { checkpoint: pipe(base, upcycle(measured)), warnings }
}

async function buildGraft(
  { lambda, expertLambda, layerLambda, foldRouter, sharedExpert }: BodyOf<'graft'>,
  { input, find, environment: { force } }: Context,
): Promise<BuiltMerge> {
  const cpt = input('model')
  const delta = find('delta')
  const settings = {
    ...given({ lambda, foldRouter, sharedExpert, upcycled: find('upcycled')?.provenance }),
    ...(expertLambda ? { expertLambda: factorsOf(expertLambda) } : {}),
    ...(layerLambda ? { layerLambda: factorsOf(layerLambda) } : {}),
    force,
  }
  const options: GraftOptions = delta
    ? { ...settings, delta, vocabularies: await readVocabularies({ post: delta, cpt }) }
    : await withPair(settings, cpt, { base: input('base'), post: input('post') })
  throwIfAny(graftProblems(cpt, options))
  return { checkpoint: pipe(cpt, graft(options)), warnings: graftWarnings(cpt, options) }
}

async function withPair<Settings>(
  settings: Settings,
  cpt: Checkpoint,
  pair: { readonly base: Checkpoint; readonly post: Checkpoint },
) {
  return { ...settings, ...pair, vocabularies: await readVocabularies({ ...pair, cpt }) }
}

async function lowRankOf(
  { rank, energy, targets }: BodyOf<'truncate' | 'loraExtract'>,
  { input, environment: { measuring } }: Context,
) {
  const delta = input('delta')
  const options: LowRankOptions = { delta, rank, ...given({ energy, targets }) }
  return measuring.lowRank(lowRankTargets(options), delta.sources)
}

function factorsOf(factors: Readonly<Record<string, number>>): ReadonlyMap<number, number> {
  return new Map(Object.entries(factors).map(([index, by]) => [Number(index), by]))
}

type Given<T> = { readonly [Key in keyof T]?: Exclude<T[Key], undefined> }

/** Without what is undefined. */
function given<T extends object>(options: T): Given<T> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Given<T>
}
