import { type Family, familyNamed, nameOf, roleOf } from '@polygraft/architectures'
import type { Checkpoint, DType, Expr, Skipped, StateDict, Tensor } from '@polygraft/tensor'

/** The family of a checkpoint, or undefined: the delta algebra works on any, family by family it knows the vocabulary. */
export function knownFamily(checkpoint: Checkpoint): Family | undefined {
  const { model_type: modelType } = checkpoint.config
  return typeof modelType === 'string' ? familyNamed(modelType) : undefined
}

/** Whether input and output embeddings are one tensor. A head that is stored all the same is ignored on load. */
export function isTied(checkpoint: Checkpoint): boolean {
  const family = knownFamily(checkpoint)
  if (!family) return false
  return (checkpoint.config.tie_word_embeddings ?? family.defaults.tie_word_embeddings) === true
}

/** Whether the rows of tensor `name` belong to tokens: the embedding [V, H] and the head [V, H]. */
export function isVocabularyTensor(family: Family | undefined, name: string): boolean {
  const group = family && roleOf(family, name).group
  return group === 'embedding' || group === 'head'
}

/**
 * The tensors that a model computes with: those stored, without buffers that loading recomputes and without a head that
 * tying ignores. With `untied`, a tied checkpoint's embedding stands for its head as well.
 */
export function effectiveTensors(checkpoint: Checkpoint, untied: boolean): StateDict {
  const family = knownFamily(checkpoint)
  const ignored = new Set(skippedTensors(checkpoint).map(({ tensor }) => tensor))
  const tensors = new Map<string, Tensor>()
  for (const [name, tensor] of checkpoint.tensors) if (!ignored.has(name)) tensors.set(name, tensor)
  const embedding = family && tensors.get(nameOf(family, { group: 'embedding' })!)
  if (untied && embedding && isTied(checkpoint)) tensors.set(nameOf(family, { group: 'head' })!, embedding)
  return tensors
}

/** The stored tensors that `effectiveTensors` leaves out, and why. */
export function skippedTensors(checkpoint: Checkpoint): Skipped[] {
  const family = knownFamily(checkpoint)
  if (!family) return []
  const tied = isTied(checkpoint)
  const skipped: Skipped[] = []
  for (const tensor of checkpoint.tensors.keys()) {
    const { group } = roleOf(family, tensor)
    if (group === 'buffer')
      skipped.push({ tensor, reason: 'a buffer, which loading recomputes from the config' })
    if (group === 'head' && tied) skipped.push({ tensor, reason: 'tied: the embedding stands for it' })
  }
  return skipped
}

/** `tensor`'s expression with the rounding that storing it would do, so that using it symbolically gives the same. */
export function storedExpr(tensor: Tensor, checkpoint: Checkpoint): Expr {
  const { dtype, expr } = tensor
  if (hasDType(expr, dtype, checkpoint)) return expr
  // Other dtypes are refused wherever arithmetic is asked of them.
  if (dtype === 'F64' || dtype === 'F32' || dtype === 'F16' || dtype === 'BF16')
    return { op: 'cast', dtype, arg: expr }
  return expr
}

function hasDType(expr: Expr, dtype: DType, checkpoint: Checkpoint): boolean {
  switch (expr.op) {
    case 'read':
      return checkpoint.sources.get(expr.source)?.tensors.get(expr.tensor)?.dtype === dtype
    case 'rows':
    case 'columns':
    case 'spread':
      return hasDType(expr.arg, dtype, checkpoint)
    case 'concat':
      return expr.args.every((arg) => hasDType(arg, dtype, checkpoint))
    case 'cast':
      return expr.dtype === dtype
    default:
      return false
  }
}
