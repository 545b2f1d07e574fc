import {
  type Consensus,
  dareLinear,
  dareLinearTargets,
  dareTies,
  dareTiesTargets,
  linear,
  type Measures,
  type MergeTargets,
  type PerTensor,
  taskArithmetic,
  ties,
  tiesTargets,
} from '@polygraft/delta'
import type { Checkpoint, Op } from '@polygraft/tensor'
import type { PartParameters } from './_parameters.js'
import type { MergeInput, MergePlan } from './merge-plan.js'

/** A merge method with all of its parameters. */
export interface BoundMethod {
  op(measured: Measures): Op
  /** What is still to be measured; absent where nothing ever is. */
  targets?(base: Checkpoint, measured: Measures): MergeTargets
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
  return BINDINGS[binding.plan.method]!(binding)
}

/** Whether the method can be run. */
export function isBound(method: string): boolean {
  return Object.hasOwn(BINDINGS, method)
}

type Bind = (binding: Binding) => BoundMethod

const BINDINGS: Readonly<Record<string, Bind>> = {
  linear: (binding) => ({ op: () => linear({ ...weighted(binding), ...given(binding, ['normalize']) }) }),
  task_arithmetic: (binding) => ({ op: () => taskArithmetic(vectors(binding)) }),
  ties: (binding) => {
    const options = { ...sparse(binding), ...elected(binding), rescale: l1(binding) }
    return {
      op: (measured) => ties({ ...options, measured }),
      targets: (base, measured) => tiesTargets(base, { ...options, measured }),
    }
  },
  dare_linear: (binding) => {
    const options = { ...sparse(binding), seed: seedOf(binding), rescale: byProbability(binding) }
    return {
      op: (measured) => dareLinear({ ...options, measured }),
      targets: (base, measured) => dareLinearTargets(base, { ...options, measured }),
    }
  },
  dare_ties: (binding) => {
    const options = {
      ...sparse(binding),
      ...elected(binding),
      seed: seedOf(binding),
      rescale: byProbability(binding),
    }
    return {
      op: (measured) => dareTies({ ...options, measured }),
      targets: (base, measured) => dareTiesTargets(base, { ...options, measured }),
    }
  },
}

/** The models with those of their parameters that are numbers. */
function modelsWith<Name extends string>({ models, parameters }: Binding, names: readonly Name[]) {
  return models.map(({ model, input }) => {
    const entries = names.map((name) => [name, parameters.number(name, input)] as const)
    const known = Object.fromEntries(entries.filter(([, value]) => value !== undefined))
    return { model, ...(known as Partial<Record<Name, PerTensor>>) }
  })
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
function elected({ plan, parameters }: Binding): Consensus {
  const consensus = parameters.value('consensus')
  return {
    ...(plan.conventions === 'mergekit' ? { tie: 'positive' } : {}),
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
