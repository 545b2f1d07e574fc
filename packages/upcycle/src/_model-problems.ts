import { configDifferences, familyOf, roleOf, tensorProblems } from '@polygraft/architectures'
import type { Checkpoint, Problem } from '@polygraft/tensor'

/**
 * What keeps `expert` from coming from `model`: another family, a config that computes otherwise, tensors that a stock model of
 * its config does not have, or that differ in shape from the base's. The vocabularies may differ unless the mean is wanted.
 */
export function modelProblems(
  base: Checkpoint,
  expert: number,
  model: Checkpoint,
  others: 'base' | 'mean',
): Problem[] {
  const family = familyOf(base.config)
  if (familyOf(model.config) !== family) return [otherFamily(base, expert, model)]
  return [
    ...configDifferences(base.config, model.config),
    ...tensorProblems(family, model.config, model.tensors),
    ...(others === 'mean' ? vocabularyProblems(base, model) : []),
  ].map((problem) => ({ ...problem, message: `${problem.message} (the model of expert ${expert})` }))
}

function otherFamily(base: Checkpoint, expert: number, model: Checkpoint): Problem {
  return {
    code: 'family-mismatch',
    message: `The model of expert ${expert} is of another family than the base`,
    file: 'config.json',
    expected: String(base.config.model_type),
    received: String(model.config.model_type),
    next: 'Take experts from models that were trained from the same base.',
  }
}

/** Embedding and head: all else has its shape from what the configs agree on. */
function vocabularyProblems(base: Checkpoint, model: Checkpoint): Problem[] {
  const shapeIn = ({ tensors }: Checkpoint, name: string) => {
    const shape = tensors.get(name)?.shape
    return shape ? `[${shape.join(', ')}]` : 'nothing'
  }
  const family = familyOf(base.config)
  const names = [...new Set([...base.tensors.keys(), ...model.tensors.keys()])].filter((name) =>
    ['embedding', 'head'].includes(roleOf(family, name).group),
  )
  return names
    .filter((name) => shapeIn(base, name) !== shapeIn(model, name))
    .map((tensor) => ({
      code: 'shape-mismatch',
      message: 'There is no mean of tensors of different shapes',
      tensor,
      expected: `${shapeIn(base, tensor)} as in the base`,
      received: shapeIn(model, tensor),
      next: "Take everything but the experts from the base (others: 'base').",
    }))
}
