import type { PerTensor } from '@polygraft/delta'
import type { Problem } from '@polygraft/tensor'
import type { MergeInput, MergePlan, MergeSlice, Settings } from './merge-plan.js'
import { METHODS, type ParameterRule } from './methods.js'
import { numberOf, resolveSetting, type Scalar } from './setting.js'

/** A tensor of a part of a merge: its name in the output, in the input that a parameter is for, and its place among the layers. */
export interface PartTensor {
  readonly name: string
  readonly t: number
  nameIn(input: MergeInput): string
}

/** The parameters of a part, resolved for each of its tensors. */
export interface PartParameters {
  /** A number, of the whole merge or of an input; undefined where nothing is given and the method has its own default. */
  number(name: string, input?: MergeInput): PerTensor | undefined
  /** A value that must be the same for all tensors. */
  value(name: string): Scalar | undefined
  /** A problem for every tensor for which a parameter comes to nothing, and for values that may not change between tensors. */
  readonly problems: readonly Problem[]
}

/** Resolves parameters: a model's own settings count first, then the slice's, then those of the whole. */
export function partParameters(
  plan: MergePlan,
  slice: MergeSlice,
  inputs: readonly MergeInput[],
  tensors: readonly PartTensor[],
): PartParameters {
  const { parameters: rules } = METHODS[plan.method]!
  const problems: Problem[] = []
  // By parameter and place of the input; -1 for the whole merge.
  const values = new Map<string, ReadonlyMap<string, Scalar>>()
  const keyOf = (name: string, input?: MergeInput) => `${name} ${input ? inputs.indexOf(input) : -1}`
  for (const [name, rule] of Object.entries(rules))
    for (const input of rule.scope === 'merge' ? [undefined] : inputs) {
      const scopes = [...(input ? [input.parameters] : []), slice.parameters, ...plan.parameters]
      const found = new Map<string, Scalar>()
      for (const tensor of tensors) {
        const value = lookup(name, scopes, tensor, input) ?? defaultOf(rule, plan)
        if (value !== undefined) found.set(tensor.name, value)
        else if (rule.default === undefined) problems.push(nothing(plan, name, tensor, input))
      }
      values.set(keyOf(name, input), found)
      if (rule.type === 'boolean' && new Set(found.values()).size > 1) problems.push(changing(plan, name))
    }
  const of = (name: string, input?: MergeInput) => [...(values.get(keyOf(name, input))?.values() ?? [])]
  return {
    problems,
    number(name, input) {
      const found = values.get(keyOf(name, input))
      const [first] = of(name, input)
      if (!found || first === undefined) return undefined
      if (of(name, input).every((value) => value === first)) return numberOf(first)
      return (tensor) => numberOf(found.get(tensor)!)!
    },
    value: (name) => of(name)[0],
  }
}

function lookup(
  name: string,
  scopes: readonly Settings[],
  tensor: PartTensor,
  input?: MergeInput,
): Scalar | undefined {
  for (const scope of scopes) {
    const setting = scope[name]
    const named = input ? tensor.nameIn(input) : tensor.name
    const value = setting === undefined ? undefined : resolveSetting(setting, named, tensor.t)
    if (value !== undefined) return value
  }
  return undefined
}

/** mergekit's default where its conventions are asked for; else undefined, so that the method's own counts. */
function defaultOf(rule: ParameterRule, plan: MergePlan): Scalar | undefined {
  return plan.conventions === 'mergekit' ? rule.default : undefined
}

function nothing(
  { method }: MergePlan,
  name: string,
  { name: tensor }: PartTensor,
  input?: MergeInput,
): Problem {
  return {
    code: 'missing-key',
    message: `${method} needs ${name}, and no condition gives one${input ? ` for ${input.model}` : ''}`,
    tensor,
    next: 'Add a value without a filter at the end of the list.',
  }
}

function changing({ method }: MergePlan, name: string): Problem {
  return {
    code: 'not-supported',
    message: `${name} of ${method} must be the same for all tensors`,
    next: 'Give one value, without filters.',
  }
}
