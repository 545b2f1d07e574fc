import { type Checkpoint, type JsonObject, type JsonValue, type Skipped, sourceIds } from '@polygraft/tensor'
import { layersOf, type Part } from './_merge-parts.js'
import { modelNames } from './_model-names.js'
import { isBefore, layerOf } from './_views.js'
import type { MergeInput, MergePlan, MergeSlice } from './merge-plan.js'
import { METHODS } from './methods.js'

export function stepOf(plan: MergePlan, models: ReadonlyMap<string, Checkpoint>): JsonObject {
  const { path: _, parameterPaths: _paths, slices, method, parameters, ...rest } = plan
  const inputs = Object.fromEntries(modelNames(plan).map((name) => [name, sourceIds(models.get(name)!)]))
  const plain = slices.map(({ path: _path, inputs, ...slice }) => ({
    ...slice,
    inputs: inputs.map(({ path: _input, ...input }) => input),
  }))
  const step = { op: method, inputs, ...rest, parameters, slices: plain }
  return JSON.parse(JSON.stringify(step)) as { [key: string]: JsonValue }
}

/** Tensors of the inputs that the output does not have, and why. */
export function skippedOf(
  plan: MergePlan,
  names: readonly string[],
  ignored: readonly (readonly Skipped[])[],
  parts: readonly Part[],
  models: ReadonlyMap<string, Checkpoint>,
): Skipped[] {
  return names.flatMap((name, i) => {
    const model = models.get(name)!
    const used = new Set<string>()
    for (const part of parts)
      for (const input of inputsOf(plan, part.slice))
        if (input.model === name)
          for (const tensor of model.tensors.keys())
            if (isIn(tensor, part, layersOf(input, models))) used.add(tensor)
    const unused = [...model.tensors.keys()].filter((tensor) => !used.has(tensor))
    return [
      ...ignored[i]!.map(({ tensor, reason }) => ({ tensor, reason: `${reason} (${name})` })),
      ...unused.map((tensor) => ({ tensor, reason: `${reasonFor(tensor)} (${name})` })),
    ]
  })
}

function inputsOf(plan: MergePlan, slice: MergeSlice): readonly MergeInput[] {
  const base = METHODS[plan.method]!.base === 'none' ? undefined : (slice.base ?? plan.base)
  const listed = base === undefined || slice.inputs.some(({ model }) => model === base)
  return listed ? slice.inputs : [...slice.inputs, { model: base, parameters: {}, path: plan.path }]
}

function isIn(tensor: string, { before, after }: Part, [from, to]: readonly [number, number]): boolean {
  const layer = layerOf(tensor)
  if (layer === undefined) return isBefore(tensor) ? before : after
  return layer >= from && layer < to
}

function reasonFor(tensor: string): string {
  const layer = layerOf(tensor)
  if (layer !== undefined) return `layer ${layer} is in no slice`
  return isBefore(tensor) ? 'the first slice has another model' : 'the last slice has another model'
}
