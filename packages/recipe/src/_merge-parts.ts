import { measureMerge } from '@polygraft/delta'
import { type Checkpoint, mergeSources, type Tensor, throwIfAny } from '@polygraft/tensor'
import { bindMethod } from './_bind-method.js'
import type { MergeEnvironment } from './_merge-environment.js'
import { type PartTensor, partParameters } from './_parameters.js'
import { othersOf } from './_plan-problems.js'
import { inLayer, isBefore, layerCount, layerOf, type View, viewOf } from './_views.js'
import type { MergeInput, MergePlan, MergeSlice } from './merge-plan.js'
import { METHODS } from './methods.js'

/** A part of the output: a slice, where its layers go, and what lies before and after them. */
export interface Part {
  readonly slice: MergeSlice
  readonly at: number
  readonly count: number
  readonly before: boolean
  readonly after: boolean
}

export function partsOf({ slices }: MergePlan, models: ReadonlyMap<string, Checkpoint>): Part[] {
  let at = 0
  return slices.map((slice, i) => {
    const [from, to] = layersOf(slice.inputs[0]!, models)
    const part = { slice, at, count: to - from, before: i === 0, after: i === slices.length - 1 }
    at += to - from
    return part
  })
}

export function layersOf(
  { layers, model }: MergeInput,
  models: ReadonlyMap<string, Checkpoint>,
): readonly [number, number] {
  return layers ?? [0, layerCount(models.get(model)!)]
}

function viewIn(part: Part, layers: readonly [number, number]): View {
  return { layers, at: part.at, before: part.before, after: part.after }
}

export async function mergeParts(
  plan: MergePlan,
  parts: readonly Part[],
  models: ReadonlyMap<string, Checkpoint>,
  environment: MergeEnvironment,
): Promise<Map<string, Tensor>> {
  const total = parts.reduce((sum, { count }) => sum + count, 0)
  const tensors = new Map<string, Tensor>()
  for (const part of parts) {
    const merged = await mergePart(plan, part, total, models, environment)
    for (const [name, tensor] of merged.tensors) tensors.set(name, tensor)
  }
  return tensors
}

async function mergePart(
  plan: MergePlan,
  part: Part,
  total: number,
  models: ReadonlyMap<string, Checkpoint>,
  { measuring }: MergeEnvironment,
): Promise<Checkpoint> {
  const { slice } = part
  const rule = METHODS[plan.method]!
  const view = (input: MergeInput) =>
    viewOf(models.get(input.model)!, viewIn(part, layersOf(input, models)), total)
  const baseName = rule.base === 'none' ? undefined : (slice.base ?? plan.base)
  const listed = slice.inputs.find(({ model }) => model === baseName)
  const base =
    baseName === undefined ? undefined : (listed ?? { model: baseName, parameters: {}, path: plan.path })
  const others = othersOf(plan, slice)
  const target = view(base ?? others[0]!)
  const parameters = partParameters(plan, slice, others, partTensors(plan, part, target, models))
  throwIfAny(parameters.problems)
  const method = bindMethod({
    plan,
    parameters,
    models: others.map((input) => ({ model: view(input), input })),
    fromBase: base !== undefined,
    force: true,
  })
  const sources = mergeSources(...models.values())
  const measured = await measureMerge(
    (known) => method.targets(target, known),
    (targets) => measuring.targets(targets, sources),
  )
  return method.op(measured)(target)
}

/** The tensors of a part, with their places: gradients go over the layers of a slice. */
function partTensors(
  plan: MergePlan,
  { at, count }: Part,
  target: Checkpoint,
  models: ReadonlyMap<string, Checkpoint>,
): PartTensor[] {
  return [...target.tensors.keys()].map((name) => {
    const layer = layerOf(name)
    return {
      name,
      t: layer === undefined ? outsideOf(plan, name) : placeOf(plan, layer, { at, count }),
      nameIn: (input) =>
        layer === undefined ? name : inLayer(name, layer - at + layersOf(input, models)[0]),
    }
  })
}

function outsideOf({ outside }: MergePlan, name: string): number {
  return outside === 'ends' && !isBefore(name) ? 1 : 0
}

/** 0 for the first layer of a slice, 1 for its last; mergekit calls a single layer the last. */
function placeOf(
  { conventions }: MergePlan,
  layer: number,
  { at, count }: Pick<Part, 'at' | 'count'>,
): number {
  if (count === 1) return conventions === 'mergekit' ? 1 : 0
  return (layer - at) / (count - 1)
}
