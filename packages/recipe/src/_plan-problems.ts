import type { Problem } from '@polygraft/tensor'
import { describe, meant } from './_issues.js'
import type { Path, YamlText } from './_yaml.js'
import type { MergeInput, MergePlan, MergeSlice, Settings } from './merge-plan.js'
import { METHODS, type MethodRule, type ParameterRule } from './methods.js'
import { numberOf, type Scalar, settingValues } from './setting.js'

/** What keeps a plan from being run, and what of it has no effect. */
export interface PlanFindings {
  readonly problems: readonly Problem[]
  readonly warnings: readonly Problem[]
}

// Accepted everywhere and without effect: it changes how mergekit stores masks.
const MEANINGLESS = ['int8_mask']

/** Everything about a plan that can be told without opening a model: parameters, their ranges, number of models, the base. */
export function planFindings(plan: MergePlan, yaml: YamlText): PlanFindings {
  const rule = METHODS[plan.method]!
  const problems: Problem[] = []
  const warnings: Problem[] = []
  for (const { settings, path, at } of scopesOf(plan)) {
    for (const [name, setting] of Object.entries(settings)) {
      const parameter = rule.parameters[name]
      const place = [...path, name]
      if (MEANINGLESS.includes(name)) continue
      if (!parameter) {
        if (isKnown(name)) warnings.push(noEffect(plan, name, yaml, place))
        else problems.push(unknownParameter(rule, plan, name, yaml, place))
      } else if (at === 'model' && parameter.scope === 'merge')
        problems.push(wrongScope(plan, name, yaml, place))
      else
        problems.push(
          ...settingValues(setting).flatMap((value) => rangeProblems(name, parameter, value, yaml, place)),
        )
    }
  }
  for (const slice of plan.slices) problems.push(...sliceProblems(plan, rule, slice, yaml))
  return { problems, warnings }
}

interface Scope {
  readonly settings: Settings
  readonly path: Path
  readonly at: 'model' | 'merge'
}

function scopesOf({ parameters, parameterPaths, slices }: MergePlan): Scope[] {
  return [
    ...parameters.map((settings, i): Scope => ({ settings, path: parameterPaths[i]!, at: 'merge' })),
    ...slices.flatMap(({ inputs, parameters: settings, path }): Scope[] => [
      { settings, path: [...path, 'parameters'], at: 'merge' },
      ...inputs.map(
        (input): Scope => ({ settings: input.parameters, path: [...input.path, 'parameters'], at: 'model' }),
      ),
    ]),
  ]
}

/** Whether any method has a parameter of that name. */
function isKnown(name: string): boolean {
  return Object.values(METHODS).some(({ parameters }) => Object.hasOwn(parameters, name))
}

function unknownParameter(
  rule: MethodRule,
  { method }: MergePlan,
  name: string,
  yaml: YamlText,
  path: Path,
): Problem {
  const choices = Object.keys(rule.parameters)
  return {
    code: 'unknown-key',
    message: `${method} has no parameter ${name}`,
    ...yaml.place(path, 'key'),
    expected: choices.join(', ') || 'no parameters',
    received: name,
    ...meant(name, choices),
  }
}

function noEffect({ method }: MergePlan, name: string, yaml: YamlText, path: Path): Problem {
  return { code: 'no-effect', message: `${name} means nothing to ${method}`, ...yaml.place(path, 'key') }
}

function wrongScope({ method }: MergePlan, name: string, yaml: YamlText, path: Path): Problem {
  return {
    code: 'wrong-place',
    message: `${name} of ${method} is one for the whole merge, not for a model`,
    ...yaml.place(path, 'key'),
    expected: 'under parameters of the recipe or of a slice',
    received: 'under a model',
    next: 'Move it there.',
  }
}

function rangeProblems(
  name: string,
  rule: ParameterRule,
  value: Scalar,
  yaml: YamlText,
  path: Path,
): Problem[] {
  const expected = expectedOf(rule)
  if (fits(rule, value)) return []
  const received = describe(value)
  return [{ code: 'bad-value', message: `${name} is not usable`, ...yaml.place(path), expected, received }]
}

function fits({ type, above, least, most, choices }: ParameterRule, value: Scalar): boolean {
  if (typeof value === 'string' && choices?.includes(value)) return true
  if (type === 'boolean') return typeof value === 'boolean'
  const number = numberOf(value)
  return (
    number !== undefined &&
    (type !== 'whole' || Number.isSafeInteger(number)) &&
    (above === undefined || number > above) &&
    (least === undefined || number >= least) &&
    (most === undefined || number <= most)
  )
}

function expectedOf({ type, above, least, most, choices = [] }: ParameterRule): string {
  if (type === 'boolean') return ['true', 'false', ...choices].join(', ')
  const bounds = [
    ...(above === undefined ? [] : [`above ${above}`]),
    ...(least === undefined ? [] : [`at least ${least}`]),
    ...(most === undefined ? [] : [`at most ${most}`]),
  ]
  return [type === 'whole' ? 'a whole number' : 'a number', ...bounds].join(', ')
}

function sliceProblems(plan: MergePlan, rule: MethodRule, slice: MergeSlice, yaml: YamlText): Problem[] {
  const base = slice.base ?? plan.base
  const others = othersOf(plan, slice)
  const place = (path: Path) => yaml.place(path, 'key')
  const problems: Problem[] = []
  if (rule.base === 'required' && base === undefined)
    problems.push({
      code: 'missing-base',
      message: `${plan.method} needs a base`,
      ...place(plan.path),
      expected: plan.conventions === 'mergekit' ? 'base_model' : 'base',
      received: 'none',
      next: 'Name the model that the others were trained from.',
    })
  if (
    rule.base !== 'none' &&
    base !== undefined &&
    slice.inputs[0]?.layers &&
    !slice.inputs.some(({ model }) => model === base)
  )
    problems.push({
      code: 'missing-base',
      message: 'The base is none of the sources of the slice, so its layers are not known',
      ...place(slice.path),
      expected: base,
      next: 'List it among the sources with its layer_range.',
    })
  problems.push(...countProblems(plan, rule, others.length, place(slice.path)))
  const lengths = slice.inputs.flatMap(({ layers }) => (layers ? [layers[1] - layers[0]] : []))
  for (const { layers, path } of slice.inputs)
    if (layers && layers[1] <= layers[0])
      problems.push({
        code: 'bad-value',
        message: 'The range holds no layer',
        ...place([...path, 'layer_range']),
        received: `[${layers}]`,
      })
  if (new Set(lengths).size > 1)
    problems.push({
      code: 'bad-value',
      message: 'The sources of a slice have different numbers of layers',
      ...place(slice.path),
      expected: 'ranges of one length',
      received: lengths.join(', '),
    })
  return [...problems, ...missingParameters(plan, rule, slice, others, yaml)]
}

/** The models of a slice beside the base; all of them where the method has none. */
export function othersOf(plan: MergePlan, slice: MergeSlice): readonly MergeInput[] {
  const base = METHODS[plan.method]!.base === 'none' ? undefined : (slice.base ?? plan.base)
  return slice.inputs.filter(({ model }) => model !== base)
}

function countProblems(
  { method }: MergePlan,
  rule: MethodRule,
  count: number,
  place: Partial<Problem>,
): Problem[] {
  const { least, most = Number.POSITIVE_INFINITY } = rule
  if (count >= least && count <= most) return []
  const wanted =
    most === least ? `${least}` : most < Number.POSITIVE_INFINITY ? `${least} to ${most}` : `${least} or more`
  return [
    {
      code: 'bad-model-count',
      message: `${method} takes another number of models${rule.base === 'none' ? '' : ' beside the base'}`,
      ...place,
      expected: wanted,
      received: `${count}`,
    },
  ]
}

function missingParameters(
  plan: MergePlan,
  rule: MethodRule,
  slice: MergeSlice,
  others: readonly MergeInput[],
  yaml: YamlText,
): Problem[] {
  const shared = [slice.parameters, ...plan.parameters]
  return Object.entries(rule.parameters)
    .filter(([, { default: value }]) => value === undefined)
    .flatMap(([name, { scope }]) => {
      if (shared.some((settings) => Object.hasOwn(settings, name))) return []
      const missing = (path: Path): Problem => ({
        code: 'missing-key',
        message: `${plan.method} needs the parameter ${name}${scope === 'merge' ? '' : ' of each model'}`,
        ...yaml.place(path),
        expected: expectedOf(rule.parameters[name]!),
      })
      if (scope === 'merge') return [missing(plan.path)]
      return others
        .filter(({ parameters }) => !Object.hasOwn(parameters, name))
        .map(({ path }) => missing(path))
    })
}
