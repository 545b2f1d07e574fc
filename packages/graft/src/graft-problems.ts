import {
  configDifferences,
  dimensionsOf,
  expectedTensors,
  type Family,
  familyOf,
  SHARED_EXPERT_PLACEHOLDER,
  tensorProblems,
} from '@polygraft/architectures'
import {
  effectiveTensors,
  isTied,
  isVocabularyTensor,
  lambdaProblems,
  missingTensor,
  readDeltaStep,
  shapeMismatch,
} from '@polygraft/delta'
import { collapsedConfig, piecesOf } from '@polygraft/experts'
import { type Checkpoint, ModelError, type Problem } from '@polygraft/tensor'
import { alignRows, type DenseDelta, denseDelta, type TensorDelta } from './_dense-delta.js'
import { expansionOf, expansionProblems, knowsSharedExpert, withOrigin } from './_expansion.js'
import { isDelta, originProblems } from './_origin-problems.js'
import { layoutFor, planSteps } from './_plan.js'
import {
  checkpointsOf,
  type GraftOptions,
  type GraftSettings,
  type PairSource,
  withoutAllowedIn,
} from './options.js'

/**
 * Everything that keeps the delta from being grafted onto the cpt `given`: families and configs that disagree (unless forced),
 * tensors missing, unexpected, of other shapes or no floats in any of the checkpoints, vocabularies, the stored delta's
 * base, factors that are no numbers or name no expert or layer. All kinds together; empty when `graft` will do.
 */
export function graftProblems(given: Checkpoint, all: GraftOptions): Problem[] {
  const { cpt: whole, options } = withoutAllowedIn(given, all)
  const cpt = withOrigin(whole, options)
  const families = [
    ...Object.entries(checkpointsOf(cpt, options)).flatMap(([role, each]) => deltaAsModel(role, each)),
    ...collect(() => familyProblems(cpt, options)),
  ]
  // Without families in agreement no tensor can be looked up in another checkpoint.
  if (families.length > 0) return [...factorProblems(options), ...families]
  const delta = denseDelta(options)
  const roles = checkpointsOf(cpt, options)
  const origin = collect(() => expansionProblems(cpt, delta.config, options))
  // Without knowing how cpt was made, no tensor has a counterpart.
  if (origin.length > 0) return [...factorProblems(options), ...origin]
  const stored = Object.entries(roles).flatMap(([role, each]) => collect(() => storedProblems(role, each)))
  return [
    ...collect(() => settingProblems(cpt, options, delta)),
    ...(options.force ? [] : collect(() => guardProblems(cpt, options, delta))),
    ...stored,
    ...collect(() => crossProblems(cpt, options, delta, new Set(stored.map(({ tensor }) => tensor)))),
    ...collect(() => alignRows(cpt, options).problems),
  ]
}

/** The problems that `find` returns, or those of the ModelError that it throws. */
function collect(find: () => readonly Problem[]): readonly Problem[] {
  try {
    return find()
  } catch (error) {
    if (error instanceof ModelError) return error.problems
    throw error
  }
}

function familyProblems(cpt: Checkpoint, options: GraftOptions): readonly Problem[] {
  const unknown = Object.values(checkpointsOf(cpt, options)).flatMap((each) =>
    collect(() => {
      familyOf(each.config)
      return []
    }),
  )
  if (unknown.length > 0) return unknown
  if ('delta' in options) readDeltaStep(options.delta)
  const { family, carrier } = denseDelta(options)
  const target = familyOf(cpt.config)
  const problems: Problem[] = []
  if (family.moe)
    problems.push(familyMismatch('The delta must come from dense checkpoints', 'a dense family', family))
  else if (target !== family && !family.targets.includes(target.modelType))
    problems.push(
      familyMismatch(
        'cpt does not derive from the family of the delta',
        [family.modelType, ...family.targets].join(' or '),
        target,
      ),
    )
  if (familyOf(carrier.config) !== family && !options.force)
    problems.push(
      familyMismatch('base and post are of different families', family.modelType, familyOf(carrier.config)),
    )
  return problems
}

function deltaAsModel(role: string, checkpoint: Checkpoint): Problem[] {
  if (role === 'delta' || !isDelta(checkpoint)) return []
  return [
    {
      code: 'is-delta',
      message: `${role} holds a delta, post - base, and no model`,
      next: 'Use it as the delta (--delta), and a model here.',
    },
  ]
}

function familyMismatch(message: string, expected: string, received: Family): Problem {
  const next = 'Use the base that cpt was upcycled from, and a post-trained version of it.'
  return {
    code: 'family-mismatch',
    message,
    file: 'config.json',
    expected,
    received: received.modelType,
    next,
  }
}

function factorProblems({ lambda = 1, expertLambda, layerLambda }: GraftSettings): Problem[] {
  return [
    ...lambdaProblems(lambda),
    ...[...(expertLambda ?? [])].flatMap(([e, by]) => lambdaProblems(by, `The lambda of expert ${e}`)),
    ...[...(layerLambda ?? [])].flatMap(([l, by]) => lambdaProblems(by, `The lambda of layer ${l}`)),
  ]
}

function settingProblems(cpt: Checkpoint, options: GraftOptions, delta: DenseDelta): Problem[] {
  const family = familyOf(cpt.config)
  const { numExperts, numLayers, sharedExpertSize, expertIntermediateSize } = dimensionsOf(family, cpt.config)
  const { granularity } = expansionOf(cpt, delta.config, options)
  const problems = factorProblems(options)
  problems.push(...indexProblems('expert', options.expertLambda, numExperts / granularity))
  problems.push(...indexProblems('layer', options.layerLambda, numLayers))
  const isAmbiguous =
    !knowsSharedExpert(cpt.provenance.recipe) &&
    sharedExpertSize === expertIntermediateSize &&
    sharedExpertSize !== SHARED_EXPERT_PLACEHOLDER
  if (sharedExpertSize > 0 && isAmbiguous && !options.sharedExpert)
    problems.push({
      code: 'shared-expert-unknown',
      message:
        'The shared expert has the size of the dense block: it may derive from it, or be a placeholder of zeros',
      expected: "sharedExpert: 'derived' (it takes the delta) or 'placeholder' (it does not)",
      received: 'neither',
    })
  return problems
}

function indexProblems(
  kind: string,
  factors: ReadonlyMap<number, number> | undefined,
  count: number,
): Problem[] {
  return [...(factors?.keys() ?? [])]
    .filter((index) => !Number.isInteger(index) || index < 0 || index >= count)
    .map((index) => ({
      code: `unknown-${kind}`,
      message: `A lambda is given for ${kind} ${index}, which cpt does not have`,
      expected: count === 0 ? `no ${kind} lambdas: cpt is dense` : `0 to ${count - 1}`,
      received: `${index}`,
    }))
}

function guardProblems(cpt: Checkpoint, options: GraftOptions, { carrier, config }: DenseDelta): Problem[] {
  const collapsed = { ...cpt, config: collapsedConfig(cpt.config, expansionOf(cpt, config, options)) }
  if ('delta' in options)
    return [...guard('the delta', carrier, 'cpt', collapsed), ...originProblems(cpt, options)]
  return [
    ...guard('base', options.base, 'post', carrier),
    ...guard('base', options.base, 'cpt', collapsed),
    ...originProblems(cpt, options),
  ]
}

function guard(nameA: string, a: Checkpoint, nameB: string, b: Checkpoint): Problem[] {
  return configDifferences(a.config, b.config).map((problem) => ({
    ...problem,
    message: `${problem.message} (${nameA}, ${nameB})`,
  }))
}

/** One checkpoint against the stock model of its config. */
function storedProblems(role: string, { config, tensors }: Checkpoint): Problem[] {
  const problems = tensorProblems(familyOf(config), config, tensors)
  return [
    ...(config.quantization_config ? [quantised(role)] : []),
    ...problems.map((problem) => ({ ...problem, message: `${problem.message} (${role})` })),
  ]
}

function quantised(role: string): Problem {
  return {
    code: 'quantised',
    message: `${role} is quantised: its weights are no numbers to do arithmetic on`,
    file: 'config.json',
    expected: 'no quantization_config',
    next: 'Use the unquantised checkpoint (BF16, F16 or F32).',
  }
}

/** The checkpoints against each other, apart from what is wrong within one of them (`known`). */
function crossProblems(
  cpt: Checkpoint,
  options: GraftOptions,
  delta: DenseDelta,
  known: ReadonlySet<string | undefined>,
): Problem[] {
  const target = familyOf(cpt.config)
  const deltas = delta.tensors(true)
  const steps = planSteps(cpt, delta, options)
  const layout = layoutFor(cpt, delta, options)
  const names = [...steps.map(({ name }) => name), ...expectedTensors(target, cpt.config).keys()]
  const taken = new Set(names.flatMap((name) => piecesOf(layout, name)).map(({ dense }) => dense))
  const problems = [
    ...('delta' in options ? [] : unpaired(options)),
    ...[...delta.tensors(false).keys()].filter((name) => !taken.has(name)).map(untaken),
  ]
  for (const { name, pieces, cpt: tensor } of steps) {
    if (known.has(name)) continue
    const from = isVocabularyTensor(target, name) ? 1 : 0
    for (const { dense, matrix } of pieces)
      problems.push(
        ...pieceProblems(name, dense, (matrix?.shape ?? tensor.shape).slice(from), from, deltas.get(dense)),
      )
  }
  return problems.filter(({ tensor }) => !known.has(tensor))
}

/** A dense tensor's delta against the shape that cpt has for it, from dimension `from` on. */
function pieceProblems(
  name: string,
  dense: string,
  shape: readonly number[],
  from: number,
  change: TensorDelta | undefined,
): Problem[] {
  if (!change) return [missingTensor(dense, 'cpt', 'the delta')]
  const [post, base] = [change.shape, change.baseShape].map((each) => each.slice(from)) as [
    number[],
    number[],
  ]
  const text = (sizes: readonly number[]) => `[${sizes.join(', ')}]`
  if (`${post}` !== `${shape}`) return [shapeMismatch(name, `${text(post)} as in post`, text(shape))]
  if (`${base}` !== `${shape}`)
    return [shapeMismatch(name, `${text(shape)} as in cpt`, `${text(base)} in base`)]
  return []
}

/** Tensors that only one of base and post has. */
function unpaired({ base, post }: PairSource): Problem[] {
  const untied = !(isTied(base) && isTied(post))
  const [before, after] = [effectiveTensors(base, untied), effectiveTensors(post, untied)]
  return [
    ...[...after.keys()]
      .filter((name) => !before.has(name))
      .map((name) => missingTensor(name, 'post', 'base')),
    ...[...before.keys()]
      .filter((name) => !after.has(name))
      .map((name) => missingTensor(name, 'base', 'post')),
  ]
}

function untaken(tensor: string): Problem {
  return {
    code: 'unexpected-tensor',
    message: 'The delta has a tensor that no tensor of cpt derives from',
    tensor,
    next: "cpt's family has no place for it; use the base that cpt was upcycled from.",
  }
}
