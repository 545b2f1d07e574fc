import {
  type AnyModel,
  type Consensus,
  MERGE_METHODS,
  type Measures,
  type MergeTargets,
  type PerTensor,
} from '@polygraft/delta'
import type { Checkpoint, Op } from '@polygraft/tensor'
import type { PartParameters } from './_parameters.js'
import type { MergeInput, MergePlan } from './merge-plan.js'

/** A merge method with all of its parameters. */
export interface BoundMethod {
  op(measured: Measures): Op
  /** What is still to be measured. */
  targets(base: Checkpoint, measured: Measures): MergeTargets
}

/** What a method is bound to. */
export interface Binding {
  readonly plan: MergePlan
  readonly parameters: PartParameters
  /** The models beside the base, or all where there is none. */
  readonly models: readonly { readonly model: Checkpoint; readonly input: MergeInput }[]
  /** Whether the target of the operation is the base. */
  readonly fromBase: boolean
  readonly force: boolean
}

/**
 * The merge method of a plan with its models and parameters. What the recipe leaves open is left to the method, which then does
 * as its paper says; with mergekit's conventions the plan's parameters hold mergekit's defaults already.
 */
export function bindMethod(binding: Binding): BoundMethod {
  const { op, targets } = MERGE_METHODS[binding.plan.method]!
  const options = OPTIONS[binding.plan.method]!(binding)
  return {
    op: (measured) => op({ ...options, measured }),
    targets: (base, measured) => targets(base, { ...options, measured }),
  }
}

interface Options {
  readonly models: readonly AnyModel[]
  readonly [option: string]: unknown
}

const sparseElected = (binding: Binding): Options => ({ ...sparse(binding), ...elected(binding) })
const dropped = (binding: Binding) => ({ seed: seedOf(binding), rescale: byProbability(binding) })
const ranked = (binding: Binding): Options => ({
  ...vectors(binding),
  ...dropped(binding),
  models: modelsWith(binding, ['weight', 'density', 'epsilon']),
})
const crumbs = (binding: Binding): Options => ({
  ...vectors(binding),
  models: modelsWith(binding, ['weight', 'density', 'gamma']),
  rescale: l1(binding),
})

/** The options of each method, under the names that `@polygraft/delta` has for them. */
const OPTIONS: Readonly<Record<string, (binding: Binding) => Options>> = {
  linear: (binding) => ({ ...weighted(binding), ...given(binding, ['normalize']) }),
  slerp: (binding) => ({ ...plain(binding), ...numbers(binding, { t: 't' }) }),
  nuslerp: (binding) => ({ ...weighted(binding), fromBase: binding.fromBase, grain: grainOf(binding) }),
  multislerp: (binding) => ({
    ...weighted(binding),
    fromBase: binding.fromBase,
    normalize: binding.parameters.value('normalize_weights') ?? true,
  }),
  karcher: (binding) => ({
    ...plain(binding),
    ...values(binding, { max_iter: 'maxIterations', tol: 'tolerance' }),
  }),
  task_arithmetic: vectors,
  ties: (binding) => ({ ...sparseElected(binding), rescale: l1(binding) }),
  dare_linear: (binding) => ({ ...sparse(binding), ...dropped(binding) }),
  dare_ties: (binding) => ({ ...sparseElected(binding), ...dropped(binding) }),
  breadcrumbs: crumbs,
  breadcrumbs_ties: (binding) => ({ ...crumbs(binding), ...elected(binding) }),
  della: (binding) => ({ ...ranked(binding), ...elected(binding) }),
  della_linear: ranked,
  sce: (binding) => ({
    ...plain(binding),
    ...numbers(binding, { select_topk: 'selectTopk' }),
    ...(isMergekit(binding) ? MERGE_METHODS.sce!.mergekit : {}),
  }),
  model_stock: (binding) => ({
    ...plain(binding),
    grain: binding.parameters.value('filter_wise') === true ? 'rows' : 'tensor',
  }),
  nearswap: (binding) => ({ ...plain(binding), ...numbers(binding, { t: 't' }) }),
  arcee_fusion: plain,
  ram: (binding) => ({ ...plain(binding), ...numbers(binding, { epsilon: 'epsilon' }) }),
  ramplus_tl: (binding) => ({
    ...plain(binding),
    ...numbers(binding, { epsilon: 'epsilon', r: 'r', alpha: 'alpha' }),
  }),
  passthrough: (binding) => ({ models: modelsWith(binding, ['scale']), force: binding.force }),
}

/** The models with those of their parameters that are numbers. */
function modelsWith<Name extends string>({ models, parameters }: Binding, names: readonly Name[]) {
  return models.map(({ model, input }) => {
    const entries = names.map((name) => [name, parameters.number(name, input)] as const)
    const known = Object.fromEntries(entries.filter(([, value]) => value !== undefined))
    return { model, ...(known as Partial<Record<Name, PerTensor>>) }
  })
}

function plain({ models, force }: Binding): Options {
  return { models: models.map(({ model }) => ({ model })), force }
}

/** The named parameters of the whole merge that have a value, each by tensor, under the option's name. */
function numbers({ parameters }: Binding, names: Readonly<Record<string, string>>) {
  const entries = Object.entries(names).map(([name, option]) => [option, parameters.number(name)] as const)
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined))
}

/** The same for what cannot differ by tensor. */
function values({ parameters }: Binding, names: Readonly<Record<string, string>>) {
  const entries = Object.entries(names).map(([name, option]) => [option, parameters.value(name)] as const)
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined))
}

/** mergekit's `row_wise` normalises along dimension 0, so that columns are the vectors. */
function grainOf({ parameters }: Binding): string {
  if (parameters.value('nuslerp_flatten') ?? true) return 'tensor'
  return parameters.value('nuslerp_row_wise') === true ? 'columns' : 'rows'
}

function isMergekit({ plan }: Binding): boolean {
  return plan.conventions === 'mergekit'
}

function weighted(binding: Binding) {
  return { models: modelsWith(binding, ['weight']), force: binding.force }
}

function vectors(binding: Binding) {
  const lambda = binding.parameters.number('lambda')
  return {
    ...weighted(binding),
    ...given(binding, ['normalize']),
    ...(lambda === undefined ? {} : { lambda }),
  }
}

function sparse(binding: Binding) {
  return { ...vectors(binding), models: modelsWith(binding, ['weight', 'density']) }
}

/** Of the named switches those that have a value. */
function given<Name extends string>(
  { parameters }: Binding,
  names: readonly Name[],
): Partial<Record<Name, boolean>> {
  const entries = names.map((name) => [name, parameters.value(name)] as const)
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined)) as Partial<
    Record<Name, boolean>
  >
}

/** How signs are elected: mergekit takes a sum of exactly zero for positive. */
function elected(binding: Binding): Consensus {
  const consensus = binding.parameters.value('consensus')
  return {
    ...(isMergekit(binding) ? { tie: 'positive' } : {}),
    ...(consensus === 'count' || consensus === 'sum' ? { consensus } : {}),
  }
}

function seedOf({ parameters }: Binding): number {
  return Number(parameters.value('seed') ?? 0)
}

/** What is trimmed can only be scaled up to its norm. */
function l1({ parameters }: Binding) {
  const value = parameters.value('rescale')
  return value === true || value === 'l1' ? ('l1' as const) : ('none' as const)
}

/** What is dropped at random is scaled up by the inverse of its probability to be kept, unless the norm is asked for. */
function byProbability({ parameters }: Binding) {
  const value = parameters.value('rescale')
  return value === 'l1' ? ('l1' as const) : value === false ? ('none' as const) : ('probability' as const)
}
