import { configDifferences } from '@polygraft/architectures'
import {
  type Checkpoint,
  type Expr,
  isFloat,
  type JsonObject,
  mergeSources,
  type Op,
  type Problem,
  type StateDict,
  sourceIds,
  type Tensor,
  throwIfAny,
} from '@polygraft/tensor'
import { effectiveTensors, isTied, knownFamily, skippedTensors, storedExpr } from './effective-tensors.js'
import {
  type Ask,
  createAsk,
  type Measures,
  type MergeTargets,
  missingMeasures,
  NO_MEASURES,
} from './measures.js'
import { missingTensor, notFloat, shapeMismatch } from './problems.js'

/** What all merges take: models of the target's shape, see each of them. */
interface MergeInputs {
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
 * Everything that keeps the models from being merged tensor by tensor: families and configs that differ (unless forced), tensors that one side lacks, shapes, tensors that are no floats. All of it, for all of the models.
 */
function mergeProblems(target: Checkpoint, { models, force = false }: MergeInputs): Problem[] {
  const untied = needsHead(target, models)
  const tensors = effectiveTensors(target, untied)
  const quantised = [...tensors].filter(([, { dtype }]) => !isFloat(dtype))
  return [
    ...quantised.map(([name, { dtype }]) => notFloat(name, 'the target', dtype)),
    ...models.flatMap((model, i) => [
      ...(force ? [] : configProblems(target, model, i)),
      ...tensorsProblems(tensors, effectiveTensors(model, untied), labelOf(i)),
    ]),
  ]
}

/** The operands of every tensor, in the target's order. Only for models without `mergeProblems`. */
function mergeOperands(target: Checkpoint, models: readonly Checkpoint[]): MergeOperands[] {
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
function mergeModels(
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

/** A merge of whole checkpoints: what it puts together, and how for each tensor. */
export interface Merge {
  readonly inputs: MergeInputs
  /** Fewest and most models beside the base; default 1 and any number. */
  readonly counts?: readonly [least: number, most: number]
  /** Whether the target is the base of task vectors, or gives dtypes, config and files only. Default true. */
  readonly hasBase?: boolean
  /** What is wrong with the parameters; `tensors` are the target's. */
  problems(tensors: readonly string[]): Problem[]
  /** A tensor's result; undefined while `ask` has no answer. */
  exprOf(operands: MergeOperands, ask: Ask): Expr | undefined
  /** For provenance: the name and the parameters, without inputs. */
  step(tensors: readonly string[]): JsonObject
}

/** The merge as an operation on its target. */
export function mergeOp(merge: Merge, measured: Measures = NO_MEASURES): Op {
  const { inputs, hasBase = true } = merge
  const { models } = inputs
  return (target) => {
    throwIfAny(allProblems(target, merge))
    const ask = createAsk(measured)
    const operands = mergeOperands(target, models)
    const exprs = new Map(operands.map((each) => [each.name, merge.exprOf(each, ask)]))
    throwIfAny([...missingMeasures(ask.open), ...ask.problems])
    const { op, ...parameters } = merge.step(operands.map(({ name }) => name))
    const ids = { [hasBase ? 'base' : 'target']: sourceIds(target), models: models.map(sourceIds) }
    return mergeModels(target, models, ({ name }) => exprs.get(name)!, {
      op: op!,
      inputs: ids,
      ...parameters,
    })
  }
}

/** What has to be measured before it; nothing when all is in `measured`. */
export function mergeTargets(
  target: Checkpoint,
  merge: Merge,
  measured: Measures = NO_MEASURES,
): MergeTargets {
  throwIfAny(allProblems(target, merge))
  const ask = createAsk(measured)
  for (const operands of mergeOperands(target, merge.inputs.models)) merge.exprOf(operands, ask)
  throwIfAny(ask.problems)
  return ask.open
}

function allProblems(target: Checkpoint, merge: Merge): Problem[] {
  const { inputs, counts = [1, Number.POSITIVE_INFINITY] } = merge
  const tensors = [...effectiveTensors(target, needsHead(target, inputs.models)).keys()]
  return [
    ...countProblems(inputs.models.length, counts),
    ...merge.problems(tensors),
    ...mergeProblems(target, inputs),
  ]
}

/** The tensor that the arithmetic makes of `expr`, of the output's shape: F32, or F64 for an F64 output. */
export function wideTensor({ tensor: { dtype, shape } }: MergeOperands, expr: Expr): Tensor {
  return { dtype: dtype === 'F64' ? 'F64' : 'F32', shape, expr }
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
  const [ours, theirs] = [knownFamily(target), knownFamily(model)]
  if (!ours || !theirs) return []
  if (ours.modelType !== theirs.modelType) return [otherFamily(ours.modelType, theirs.modelType, i)]
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

function countProblems(count: number, [least, most]: readonly [number, number]): Problem[] {
  if (count >= least && count <= most) return []
  const expected =
    most === least ? `${least}` : most < Number.POSITIVE_INFINITY ? `${least} to ${most}` : `${least} or more`
  return [
    {
      code: count === 0 ? 'no-models' : 'bad-model-count',
      message: count === 0 ? 'There is nothing to merge with' : 'The method takes another number of models',
      expected,
      received: `${count}`,
    },
  ]
}

function otherFamily(expected: string, received: string, i: number): Problem {
  return {
    code: 'family-mismatch',
    message: `${labelOf(i)} is of another family than the target`,
    file: 'config.json',
    expected,
    received,
    next: 'Use checkpoints that come from the same base.',
  }
}
