import type { Checkpoint, Op } from '@polygraft/tensor'
import { arceeFusion, arceeFusionTargets } from './arcee-fusion.js'
import { breadcrumbs, breadcrumbsTargets, breadcrumbsTies, breadcrumbsTiesTargets } from './breadcrumbs.js'
import { dareLinear, dareLinearTargets, dareTies, dareTiesTargets } from './dare.js'
import { della, dellaLinear, dellaLinearTargets, dellaTargets } from './della.js'
import { karcher, karcherTargets } from './karcher.js'
import { linear } from './linear.js'
import type { Measures, MergeTargets } from './measures.js'
import { NO_TARGETS } from './measures.js'
import { modelStock, modelStockTargets } from './model-stock.js'
import { multislerp, multislerpTargets } from './multislerp.js'
import { nearswap } from './nearswap.js'
import { nuslerp, nuslerpTargets } from './nuslerp.js'
import { passthrough } from './passthrough.js'
import { ram, ramPlus, ramPlusTargets } from './ram.js'
import { sce, sceTargets } from './sce.js'
import { slerp, slerpTargets } from './slerp.js'
import { taskArithmetic } from './task-arithmetic.js'
import { ties, tiesTargets } from './ties.js'

/** What a parameter of a merge may be, as plain data. */
export type ParameterRule =
  | {
      readonly type: 'number'
      /** Without one the parameter is required. */
      readonly default?: number
      readonly least?: number
      readonly above?: number
      readonly most?: number
      readonly below?: number
      readonly integer?: true
      /** May be a function of the tensor's name. */
      readonly perTensor?: true
    }
  | { readonly type: 'boolean'; readonly default: boolean }
  | { readonly type: 'choice'; readonly choices: readonly string[]; readonly default: string }

/** A model and its parameters, by the names of `perModel`. */
export interface AnyModel {
  readonly model: Checkpoint
  readonly [parameter: string]: unknown
}

/** Options of any method, by the names of `shared`. */
export interface AnyMergeOptions {
  readonly models: readonly AnyModel[]
  readonly force?: boolean
  readonly measured?: Measures
  readonly [parameter: string]: unknown
}

/** A merge method for callers that learn its name at run time. */
export interface MergeMethod {
  /** 'required': the operation's target is the base. 'optional': it is with `fromBase`. 'none': it gives dtypes, config and files only. */
  readonly base: 'required' | 'optional' | 'none'
  /** Fewest and most models beside the base. */
  readonly models: readonly [least: number, most: number]
  readonly perModel: Readonly<Record<string, ParameterRule>>
  readonly shared: Readonly<Record<string, ParameterRule>>
  /** Options with which the method does what mergekit's of this name does without any. */
  readonly mergekit: Readonly<Record<string, string | number | boolean>>
  op(options: AnyMergeOptions): Op
  targets(base: Checkpoint, options: AnyMergeOptions): MergeTargets
}

const factor = (value?: number): ParameterRule => ({
  type: 'number',
  perTensor: true,
  ...(value === undefined ? {} : { default: value }),
})
const flag = (value: boolean): ParameterRule => ({ type: 'boolean', default: value })
const choice = (...choices: readonly [string, ...string[]]): ParameterRule => ({
  type: 'choice',
  choices,
  default: choices[0],
})
const atLeast0 = (value: number): ParameterRule => ({
  type: 'number',
  perTensor: true,
  least: 0,
  default: value,
})

const weight = factor(1)
const density: ParameterRule = { type: 'number', perTensor: true, above: 0, most: 1, default: 1 }
const gamma: ParameterRule = { type: 'number', perTensor: true, least: 0, below: 1, default: 0.01 }
const epsilon: ParameterRule = { type: 'number', perTensor: true, least: 0, below: 0.5, default: 0.15 }
const seed: ParameterRule = { type: 'number', integer: true, default: 0 }
const tie = choice('none', 'positive')
const consensus = choice('sum', 'count')
const vectors = (normalize: boolean) => ({ lambda: factor(1), normalize: flag(normalize) })
const election = { ...vectors(true), consensus, tie }
const norm = choice('none', 'l1')
const drop = { seed, rescale: choice('probability', 'l1', 'none') }

const ANY = [1, Number.POSITIVE_INFINITY] as const
const ONE = [1, 1] as const

type Facts = Pick<MergeMethod, 'base'> &
  Partial<Pick<MergeMethod, 'models' | 'perModel' | 'shared' | 'mergekit'>>

/** Options are checked by the methods themselves, and by callers against the rules; here their types are let go. */
function method<Options>(
  facts: Facts,
  op: (options: Options) => Op,
  targets?: (base: Checkpoint, options: Options) => MergeTargets,
): MergeMethod {
  return {
    models: ANY,
    perModel: {},
    shared: {},
    mergekit: {},
    ...facts,
    op: (options) => op(options as unknown as Options),
    targets: (base, options) => targets?.(base, options as unknown as Options) ?? NO_TARGETS,
  }
}

/** All merge methods, by the names that mergekit gives them. */
export const MERGE_METHODS: Readonly<Record<string, MergeMethod>> = {
  linear: method({ base: 'none', perModel: { weight }, shared: { normalize: flag(true) } }, linear),
  slerp: method({ base: 'required', models: ONE, shared: { t: factor() } }, slerp, slerpTargets),
  nuslerp: method(
    {
      base: 'optional',
      models: [2, 2],
      perModel: { weight },
      shared: { grain: choice('tensor', 'rows', 'columns') },
    },
    nuslerp,
    nuslerpTargets,
  ),
  multislerp: method(
    { base: 'optional', perModel: { weight }, shared: { normalize: flag(true) } },
    multislerp,
    multislerpTargets,
  ),
  karcher: method(
    {
      base: 'none',
      perModel: { weight },
      shared: {
        maxIterations: { type: 'number', integer: true, least: 0, default: 10 },
        tolerance: { type: 'number', above: 0, below: 1, default: 1e-5 },
      },
    },
    karcher,
    karcherTargets,
  ),
  task_arithmetic: method({ base: 'required', perModel: { weight }, shared: vectors(false) }, taskArithmetic),
  ties: method(
    {
      base: 'required',
      perModel: { weight, density },
      shared: { ...election, rescale: norm },
      mergekit: { tie: 'positive' },
    },
    ties,
    tiesTargets,
  ),
  dare_linear: method(
    {
      base: 'required',
      perModel: { weight, density },
      shared: { ...vectors(false), ...drop },
      mergekit: { rescale: 'l1' },
    },
    dareLinear,
    dareLinearTargets,
  ),
  dare_ties: method(
    {
      base: 'required',
      perModel: { weight, density },
      shared: { ...election, ...drop },
      mergekit: { rescale: 'l1', normalize: false, tie: 'positive' },
    },
    dareTies,
    dareTiesTargets,
  ),
  breadcrumbs: method(
    {
      base: 'required',
      perModel: { weight, density, gamma },
      shared: { ...vectors(false), rescale: norm },
    },
    breadcrumbs,
    breadcrumbsTargets,
  ),
  breadcrumbs_ties: method(
    {
      base: 'required',
      perModel: { weight, density, gamma },
      shared: { ...election, rescale: norm },
      mergekit: { normalize: false, tie: 'positive' },
    },
    breadcrumbsTies,
    breadcrumbsTiesTargets,
  ),
  della: method(
    {
      base: 'required',
      perModel: { weight, density, epsilon },
      shared: { ...election, ...drop },
      mergekit: { rescale: 'l1', tie: 'positive' },
    },
    della,
    dellaTargets,
  ),
  della_linear: method(
    {
      base: 'required',
      perModel: { weight, density, epsilon },
      shared: { ...vectors(false), ...drop },
      mergekit: { rescale: 'l1' },
    },
    dellaLinear,
    dellaLinearTargets,
  ),
  sce: method(
    {
      base: 'required',
      shared: { selectTopk: density, tie, leastEnergy: { type: 'number', least: 0, default: 0 } },
      mergekit: { tie: 'positive', leastEnergy: 1e-6 },
    },
    sce,
    sceTargets,
  ),
  model_stock: method(
    { base: 'required', models: [2, Number.POSITIVE_INFINITY], shared: { grain: choice('tensor', 'rows') } },
    modelStock,
    modelStockTargets,
  ),
  nearswap: method(
    { base: 'required', models: ONE, shared: { t: { type: 'number', perTensor: true, least: 0 } } },
    nearswap,
  ),
  arcee_fusion: method({ base: 'required', models: ONE }, arceeFusion, arceeFusionTargets),
  passthrough: method({ base: 'none', models: ONE, perModel: { scale: factor(1) } }, passthrough),
  ram: method({ base: 'required', shared: { epsilon: atLeast0(1e-5) } }, ram),
  ramplus_tl: method(
    { base: 'required', shared: { epsilon: atLeast0(1e-5), r: atLeast0(0.1), alpha: atLeast0(0.2) } },
    ramPlus,
    ramPlusTargets,
  ),
}
