import { type Checkpoint, isFloat, type JsonObject, type Tensor } from '@polygraft/tensor'
import { layersOf, type Part } from './_merge-parts.js'
import { configOfLayers } from './_views.js'
import type { MergePlan } from './merge-plan.js'

/** Arithmetic is in F64 where the output is F64, and in F32 otherwise: the tensors of a target say which. */
export function withArithmetic(model: Checkpoint, { dtype }: MergePlan): Checkpoint {
  if (dtype === undefined) return model
  const wide = dtype === 'F64'
  const tensors = [...model.tensors].map(([name, tensor]): [string, Tensor] => {
    if (!isFloat(tensor.dtype) || (tensor.dtype === 'F64') === wide) return [name, tensor]
    return [name, { ...tensor, dtype: wide ? 'F64' : 'F32' }]
  })
  return { ...model, tensors: new Map(tensors) }
}

/** In the dtype that the recipe asks for; else as the target has them. */
export function withDTypes(
  tensors: ReadonlyMap<string, Tensor>,
  { tensors: target }: Checkpoint,
  { dtype }: MergePlan,
): ReadonlyMap<string, Tensor> {
  const first = [...target.values()][0]!.dtype
  return new Map(
    [...tensors].map(([name, tensor]) => {
      if (!isFloat(tensor.dtype)) return [name, tensor]
      return [name, { ...tensor, dtype: dtype ?? target.get(name)?.dtype ?? first }]
    }),
  )
}

const DTYPE_NAMES = { F64: 'float64', F32: 'float32', F16: 'float16', BF16: 'bfloat16' } as const
const GENERATION_IDS = ['bos_token_id', 'eos_token_id', 'pad_token_id']

export function outputConfig(
  plan: MergePlan,
  target: Checkpoint,
  parts: readonly Part[],
  models: ReadonlyMap<string, Checkpoint>,
  donor: Checkpoint | undefined,
): JsonObject {
  const sliced = plan.slices.some(({ inputs }) => inputs.some(({ layers }) => layers))
  const origins = parts.flatMap(({ slice, count }) => {
    const source = slice.inputs[0]!
    const [from] = layersOf(source, models)
    return Array.from({ length: count }, (_, i) => ({
      config: models.get(source.model)!.config,
      layer: from + i,
    }))
  })
  const name = plan.dtype && DTYPE_NAMES[plan.dtype]
  const ids = donor ? GENERATION_IDS.filter((key) => Object.hasOwn(donor.config, key)) : []
  return {
    ...(sliced ? configOfLayers(target.config, origins) : target.config),
    ...(name ? { dtype: name, torch_dtype: name } : {}),
    ...Object.fromEntries(ids.map((key) => [key, donor!.config[key]!])),
  }
}

/** All floats of `checkpoint` stored in `dtype`, and its config saying so. */
export function inDType(checkpoint: Checkpoint, dtype: NonNullable<MergePlan['dtype']>): Checkpoint {
  const tensors = [...checkpoint.tensors].map(([name, tensor]): [string, Tensor] => [
    name,
    isFloat(tensor.dtype) ? { ...tensor, dtype } : tensor,
  ])
  const name = DTYPE_NAMES[dtype]
  const config = { ...checkpoint.config, dtype: name, torch_dtype: name }
  return { ...checkpoint, config, tensors: new Map(tensors) }
}
