import { configDifferences } from '@polygraft/architectures'
import {
  type Checkpoint,
  type Expr,
  isFloat,
  type JsonObject,
  mergeSources,
  type Problem,
  type StateDict,
  type Tensor,
} from '@polygraft/tensor'
import { effectiveTensors, isTied, knownFamily, skippedTensors, storedExpr } from './effective-tensors.js'
import { missingTensor, notFloat, shapeMismatch } from './problems.js'

/** Merges of a target (the base of the task vectors, where the method has them) with other models of its shape. */
export interface MergeInputs {
  readonly models: readonly Checkpoint[]
  /** Go on although configs differ. */
  readonly force?: boolean
}

/** A tensor of the target, and its values beside those of the same name in each of the models. */
export interface MergeOperands {
  readonly name: string
  readonly tensor: Tensor
  readonly target: Expr
  readonly others: readonly Expr[]
}

/**
 * Everything that keeps the models from being merged tensor by tensor: no models, configs that differ (unless forced),
 * tensors that one side lacks, shapes, tensors that are no floats. All of it, for all of the models.
 */
export function mergeProblems(target: Checkpoint, { models, force = false }: MergeInputs): Problem[] {
  const untied = needsHead(target, models)
  const tensors = effectiveTensors(target, untied)
  const quantised = [...tensors].filter(([, { dtype }]) => !isFloat(dtype))
  return [
    ...(models.length > 0 ? [] : [noModels()]),
    ...quantised.map(([name, { dtype }]) => notFloat(name, 'the target', dtype)),
    ...models.flatMap((model, i) => [
      ...(force ? [] : configProblems(target, model, i)),
      ...tensorsProblems(tensors, effectiveTensors(model, untied), labelOf(i)),
    ]),
  ]
}

/** The operands of every tensor, in the target's order. Only for models without `mergeProblems`. */
export function mergeOperands(target: Checkpoint, models: readonly Checkpoint[]): MergeOperands[] {
  const untied = needsHead(target, models)
  const others = models.map((model) => effectiveTensors(model, untied))
  return [...effectiveTensors(target, untied)].map(([name, tensor]) => ({
    name,
    tensor,
    target: storedExpr(tensor, target),
    others: others.map((tensors, i) => storedExpr(tensors.get(name)!, models[i]!)),
  }))
}

/**
 * The target with `exprOf` for each of its tensors, in their dtypes. Config and files stay the target's; it is untied where
 * one of the models has a head of its own.
 */
export function mergeModels(
  target: Checkpoint,
  models: readonly Checkpoint[],
  exprOf: (operands: MergeOperands) => Expr,
  step: JsonObject,
): Checkpoint {
  const merged = mergeOperands(target, models).map(
    (operands) => [operands.name, { ...operands.tensor, expr: exprOf(operands) }] as const,
  )
  const unties = isTied(target) && needsHead(target, models)
  return {
    ...target,
    config: unties ? { ...target.config, tie_word_embeddings: false } : target.config,
    tensors: new Map(merged),
    sources: mergeSources(target, ...models),
    provenance: {
      ...target.provenance,
      recipe: [...target.provenance.recipe, step],
      skipped: [...target.provenance.skipped, ...skippedTensors(target)],
    },
  }
}

/** How messages call model `i`: people count from one. */
export function labelOf(i: number): string {
  return `model ${i + 1}`
}

/** Names tensor `name` of model `i`'s task vector: in messages, and for its random draws. */
export function vectorName(name: string, i: number): string {
  return `${name} of ${labelOf(i)}`
}

/** Where all are tied the embedding counts once, else each has a head. */
function needsHead(target: Checkpoint, models: readonly Checkpoint[]): boolean {
  return ![target, ...models].every(isTied)
}

function configProblems(target: Checkpoint, model: Checkpoint, i: number): Problem[] {
  if (!knownFamily(target) || !knownFamily(model)) return []
  return configDifferences(target.config, model.config).map((problem) => ({
    ...problem,
    message: `${problem.message}, in ${labelOf(i)}`,
  }))
}

function tensorsProblems(target: StateDict, model: StateDict, label: string): Problem[] {
  const unknown = [...model.keys()].filter((name) => !target.has(name))
  const problems = [...target].flatMap(([name, { shape }]) => {
    const other = model.get(name)
    if (!other) return [missingTensor(name, 'The target', label)]
    return [
      ...(`${other.shape}` === `${shape}`
        ? []
        : [shapeMismatch(name, `[${shape}] as in the target`, `[${other.shape}] in ${label}`)]),
      ...(isFloat(other.dtype) ? [] : [notFloat(name, label, other.dtype)]),
    ]
  })
  return [...problems, ...unknown.map((name) => missingTensor(name, label, 'the target'))]
}

function noModels(): Problem {
  return {
    code: 'no-models',
    message: 'There is nothing to merge with',
    expected: 'one model or more',
    received: 'none',
  }
}
