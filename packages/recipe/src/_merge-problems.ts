import { configDifferences, familyNamed } from '@polygraft/architectures'
import type { Checkpoint, JsonObject, Problem } from '@polygraft/tensor'
import type { MergeEnvironment } from './_merge-environment.js'
import { placed } from './_placed.js'
import { othersOf } from './_plan-problems.js'
import { layerCount } from './_views.js'
import type { Path } from './_yaml.js'
import type { MergePlan } from './merge-plan.js'

export function rangeProblems({ slices }: MergePlan, { models, yaml }: MergeEnvironment): Problem[] {
  return slices.flatMap(({ inputs }) =>
    inputs.flatMap(({ model, layers, path }) => {
      const count = layerCount(models.get(model)!)
      if (!layers || layers[1] <= count) return []
      return [
        {
          code: 'bad-value',
          message: 'The range goes past the last layer of the model',
          ...yaml.place([...path, 'layer_range']),
          expected: `at most [0, ${count}]`,
          received: `[${layers.join(', ')}]`,
        },
      ]
    }),
  )
}

/** Families and configs of all models against the first; lengths may differ where layers are chosen. */
export function familyProblems(
  plan: MergePlan,
  names: readonly string[],
  { models, yaml }: MergeEnvironment,
): Problem[] {
  const [first, ...others] = names
  const target = models.get(first!)!
  const sliced = plan.slices.some(({ inputs }) => inputs.some(({ layers }) => layers))
  return others.flatMap((name) => {
    const place = yaml.place(pathOf(plan, name))
    return configProblems(target, models.get(name)!, sliced).map(({ file: _, message, ...problem }) => ({
      ...problem,
      message: `${message}: ${name} beside ${first}`,
      ...place,
    }))
  })
}

function configProblems(target: Checkpoint, model: Checkpoint, sliced: boolean): readonly Problem[] {
  const [ours, theirs] = [target, model].map(({ config }) => config.model_type)
  if (ours !== theirs)
    return [
      {
        code: 'family-mismatch',
        message: 'The models are of different families',
        expected: String(ours),
        received: String(theirs),
        next: 'Use checkpoints that come from the same base.',
      },
    ]
  if (typeof ours !== 'string' || !familyNamed(ours)) return []
  const same = (config: JsonObject): JsonObject =>
    sliced ? { ...config, num_hidden_layers: 1, layer_types: null, max_window_layers: 0 } : config
  return configDifferences(same(target.config), same(model.config))
}

function pathOf({ slices, path }: MergePlan, name: string) {
  const input = slices.flatMap(({ inputs }) => inputs).find(({ model }) => model === name)
  return input ? [...input.path, 'model'] : path
}

/** What goes wrong in `work` is told with the place of the merge (of its first weight, where weights are wrong) and the names of its models. */
export async function inPlan<T>(
  plan: MergePlan,
  { yaml }: MergeEnvironment,
  work: () => Promise<T>,
): Promise<T> {
  const others = othersOf(plan, plan.slices[0]!)
  const named = (text: string) =>
    plan.slices.length > 1
      ? text
      : text.replace(/\bmodel (\d+)\b/g, (all, i) => others[Number(i) - 1]?.model ?? all)
  return placed(yaml.place(plan.path), work, (problem) => ({
    ...problem,
    ...(problem.code === 'zero-weights' ? yaml.place(weightPath(plan)) : {}),
    ...(problem.code === 'missing-tensor' ? { next: NEXT_OF_MISSING } : {}),
    message: named(problem.message),
    ...(problem.received === undefined ? {} : { received: named(problem.received) }),
  }))
}

const NEXT_OF_MISSING =
  'Use checkpoints of one model family and size, with all their shards; or name a tensor that is not needed under allow, with the reason.'

/** Where the first weight stands: of a model, or else of the whole merge. */
function weightPath({ slices, parameters, parameterPaths, path }: MergePlan): Path {
  const input = slices.flatMap(({ inputs }) => inputs).find(({ parameters: own }) => own.weight !== undefined)
  if (input) return [...input.path, 'parameters', 'weight']
  const at = parameters.findIndex(({ weight }) => weight !== undefined)
  return at < 0 ? path : [...parameterPaths[at]!, 'weight']
}
