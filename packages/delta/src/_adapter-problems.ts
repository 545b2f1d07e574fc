import { type Checkpoint, isFloat, type Problem, type StateDict, type Tensor } from '@polygraft/tensor'
import { type AdaptedModule, adapterContent, isTransposed } from './_adapter-modules.js'
import { effectiveTensors, isTied, isVocabularyTensor, knownFamily } from './effective-tensors.js'
import { isSaved, isTarget, type LoraConfig, scalingOf } from './lora-config.js'
import { notFloat, shapeMismatch } from './problems.js'
import type { Adapter } from './read-adapter.js'

const MERGE_WITH_PEFT = 'Merge it with peft (merge_and_unload), and use the merged checkpoint.'

/** What keeps `adapter` from being applied to `target`, all of it. */
export function adapterProblemsOf(target: Checkpoint, adapter: Adapter): Problem[] {
  const { config } = adapter
  const { modules, replaced, under, problems } = adapterContent(adapter)
  const tensors = effectiveTensors(target, false)
  const isReplaced = (module: string) => replaced.has(`${module}.weight`) && !under.has(`${module}.weight`)
  if (modules.length === 0 && problems.length === 0 && replaced.size === 0) return [empty()]
  return [
    ...problems,
    ...[...replaced].flatMap(([name, tensor]) =>
      replacedProblems(name, tensor, tensors, target, config, under),
    ),
    ...modules
      .filter(({ module }) => isReplaced(module))
      .map(({ module }) => replacedAndAdapted(`${module}.weight`)),
    ...modules.flatMap((adapted) => moduleProblems(adapted, tensors, target, adapter)),
  ]
}

/** Modules that the configuration names, and of which the adapter has no tensors. */
export function adapterWarningsOf(target: Checkpoint, adapter: Adapter): Problem[] {
  const { config } = adapter
  if ('pattern' in config.targets && config.targets.pattern === 'all-linear') return []
  const adapted = new Set(adapterContent(adapter).modules.map(({ module }) => module))
  const missing = [...effectiveTensors(target, false)]
    .filter(([name, { shape }]) => name.endsWith('.weight') && shape.length === 2)
    .map(([name]) => name.slice(0, -'.weight'.length))
    .filter((module) => isTarget(config, module) && !adapted.has(module))
  return missing.map((module) => ({
    code: 'not-adapted',
    message: 'The configuration names a module of which the adapter has no tensors; it stays as it is',
    tensor: `${module}.weight`,
  }))
}

function replacedProblems(
  name: string,
  tensor: Tensor,
  tensors: StateDict,
  target: Checkpoint,
  config: LoraConfig,
  under: ReadonlySet<string>,
): Problem[] {
  const module = name.replace(/\.[^.]*$/, '')
  const isVocabulary = isVocabularyTensor(knownFamily(target), name)
  const isBias = config.bias !== 'none' && name.endsWith('.bias')
  if (!isSaved(config, module) && !isBias && !isVocabulary && !under.has(name))
    return [
      {
        code: 'unknown-tensor',
        message: 'The adapter holds a whole tensor that its configuration does not name',
        tensor: name,
        expected: 'a tensor of modules_to_save, or a bias where bias is not none',
      },
    ]
  const own = tensors.get(name)
  const problems = isFloat(tensor.dtype) ? [] : [notFloat(name, 'the adapter', tensor.dtype)]
  // The head that tying leaves out.
  if (!own) return isVocabulary && isTied(target) ? problems : [...problems, unknownModule(name)]
  if (!isFloat(own.dtype)) problems.push(notFloat(name, 'the target', own.dtype))
  if (`${own.shape}` === `${tensor.shape}`) return problems
  const mismatch = shapeMismatch(name, `[${own.shape}] as in the target`, `[${tensor.shape}] in the adapter`)
  const resized =
    'The adapter was trained with another number of tokens: resize the base with transformers first.'
  return [...problems, isVocabulary ? { ...mismatch, next: resized } : mismatch]
}

function moduleProblems(
  adapted: AdaptedModule,
  tensors: StateDict,
  target: Checkpoint,
  adapter: Adapter,
): Problem[] {
  const { module } = adapted
  const { config } = adapter
  const transposed = isTransposed(target, adapter, adapted)
  const name = `${module}.weight`
  const weight = tensors.get(name)
  if (!weight) return [isTiedHead(target, name) ? tiedHead(name) : unknownModule(name)]
  const problems = isTarget(config, module) ? [] : [notATarget(module)]
  if (!isFloat(weight.dtype)) problems.push(notFloat(name, 'the target', weight.dtype))
  for (const factor of [adapted.a, adapted.b, adapted.bBias, adapted.magnitude])
    if (factor && !isFloat(factor.dtype)) problems.push(notFloat(name, 'the adapter', factor.dtype))
  problems.push(...shapeProblems(adapted, weight, config, transposed))
  if (adapted.bBias) problems.push(...biasProblems(adapted, tensors, config))
  if (adapted.magnitude && !config.dora) problems.push(unusedMagnitude(name))
  if (config.dora) problems.push(...doraProblems(adapted, weight, transposed))
  return problems
}

/** A [rank, in] and B [out, rank] against W, and the rank against the configuration. */
function shapeProblems(
  { module, a, b, isEmbedding }: AdaptedModule,
  weight: Tensor,
  config: LoraConfig,
  transposed: boolean,
): Problem[] {
  const name = `${module}.weight`
  const { rank } = scalingOf(config, module)
  const stored = [b!, a!].map(({ shape }) => `[${shape}]`).join(' x ')
  const isProduct = [a!, b!].every(({ shape }) => shape.length === 2) && a!.shape[0] === b!.shape[1]
  if (!isProduct || weight.shape.length !== 2)
    return [
      shapeMismatch(name, 'B [out, rank] x A [rank, in] for a matrix', `${stored} for [${weight.shape}]`),
    ]
  const problems: Problem[] = []
  const product = transposed ? [a!.shape[1], b!.shape[0]] : [b!.shape[0], a!.shape[1]]
  if (`${product}` !== `${weight.shape}`) {
    const mismatch = shapeMismatch(name, `[${weight.shape}] as in the target`, `${stored} in the adapter`)
    const isFlipped = !isEmbedding && `${product.toReversed()}` === `${weight.shape}`
    const next = 'The weight is stored as [in, out]: the adapter should say "fan_in_fan_out": true.'
    problems.push(
      isFlipped
        ? { ...mismatch, next }
        : { ...mismatch, next: 'Use the base that the adapter was trained on.' },
    )
  }
  if (a!.shape[0] !== rank)
    problems.push({
      code: 'rank-mismatch',
      message: 'The factors have another rank than the configuration says',
      tensor: name,
      expected: `${rank} by r and rank_pattern`,
      received: `${a!.shape[0]}`,
    })
  return problems
}

function biasProblems(
  { module, bBias, b }: AdaptedModule,
  tensors: StateDict,
  config: LoraConfig,
): Problem[] {
  const name = `${module}.bias`
  const bias = tensors.get(name)
  if (!bias)
    return [
      {
        code: 'missing-tensor',
        message: 'The adapter adds to a bias, and the layer of the target has none',
        tensor: name,
        next: 'Such an adapter cannot be merged; peft refuses it as well.',
      },
    ]
  if (!config.loraBias)
    return [
      {
        code: 'unknown-tensor',
        message: 'The adapter has a bias of B although lora_bias is false',
        tensor: name,
      },
    ]
  if (`${bBias!.shape}` === `${bias.shape}` && bias.shape[0] === b!.shape[0]) return []
  return [shapeMismatch(name, `[${bias.shape}] as in the target`, `[${bBias!.shape}] in the adapter`)]
}

function doraProblems({ module, magnitude }: AdaptedModule, weight: Tensor, transposed: boolean): Problem[] {
  const name = `${module}.weight`
  if (transposed)
    return [
      {
        code: 'unsupported-adapter',
        message: 'DoRA of a weight that is stored as [in, out] is not supported: its norms go over columns',
        tensor: name,
        next: MERGE_WITH_PEFT,
      },
    ]
  if (!magnitude)
    return [
      {
        code: 'missing-factor',
        message: 'The adapter is a DoRA and lacks the magnitude of a module',
        tensor: name,
      },
    ]
  if (`${magnitude.shape}` === `${weight.shape[0]}`) return []
  return [shapeMismatch(name, `a magnitude for each of ${weight.shape[0]} rows`, `[${magnitude.shape}]`)]
}

function isTiedHead(target: Checkpoint, name: string): boolean {
  return isTied(target) && isVocabularyTensor(knownFamily(target), name)
}

function empty(): Problem {
  return { code: 'unknown-tensor', message: 'The adapter has no tensors', next: 'Copy the adapter again.' }
}

function tiedHead(tensor: string): Problem {
  return {
    code: 'tied-head',
    message:
      'The adapter changes the head, which the target ties to its embedding, so that both would change',
    tensor,
    next: 'Untie the base first (write lm_head.weight as a copy and tie_word_embeddings: false).',
  }
}

function unknownModule(tensor: string): Problem {
  return {
    code: 'unknown-module',
    message: 'The adapter is for a tensor that the target lacks',
    tensor,
    next: 'Use the base that the adapter was trained on.',
  }
}

function notATarget(module: string): Problem {
  return {
    code: 'not-a-target',
    message:
      'The adapter has tensors of a module that its configuration does not name, and that peft would leave out',
    tensor: `${module}.weight`,
    expected: 'a module of target_modules and layers_to_transform, not excluded',
  }
}

function unusedMagnitude(tensor: string): Problem {
  return { code: 'unknown-tensor', message: 'The adapter has a magnitude although use_dora is false', tensor }
}

function replacedAndAdapted(tensor: string): Problem {
  return { code: 'unknown-tensor', message: 'The adapter both replaces a tensor and adds to it', tensor }
}
