import type { MergekitRecipe } from './_mergekit-schema.js'
import type { Reader } from './_reader.js'
import type { Path } from './_yaml.js'
import type { MergeInput, MergeSlice } from './merge-plan.js'

type Slices = NonNullable<MergekitRecipe['slices']>
type Models = NonNullable<MergekitRecipe['models']>

/** What is merged: whole models, or layers of them. */
export interface WrittenInputs {
  readonly models?: Models | undefined
  readonly slices?: Slices | undefined
}

/** The slices of the output; whole models are one slice without layers. */
export function readSlices({ models, slices }: WrittenInputs, path: Path, reader: Reader): MergeSlice[] {
  if (slices) return slices.map((slice, i) => sliceOf(slice, [...path, 'slices', i], reader))
  if (!models) return []
  const at = [...path, 'models']
  const inputs = models.map((each, i) => inputOf(each, [...at, i], reader))
  return [{ inputs, parameters: {}, path: at }]
}

function inputOf(
  { model, parameters = {}, ...rest }: Models[number] | Slices[number]['sources'][number],
  path: Path,
  reader: Reader,
): MergeInput {
  return {
    model: reader.model(model, [...path, 'model']),
    parameters,
    path,
    ...('layer_range' in rest ? { layers: rest.layer_range } : {}),
  }
}

function sliceOf(slice: Slices[number], path: Path, reader: Reader): MergeSlice {
  const { base_model: base, residual_weight: residual } = slice
  if (residual !== undefined)
    reader.report('not-supported', 'residual_weight has no meaning: mergekit reads it and does nothing', [
      ...path,
      'residual_weight',
    ])
  return {
    inputs: slice.sources.map((each, i) => inputOf(each, [...path, 'sources', i], reader)),
    ...(base === undefined ? {} : { base: reader.model(base, [...path, 'base_model']) }),
    parameters: slice.parameters ?? {},
    path,
  }
}
