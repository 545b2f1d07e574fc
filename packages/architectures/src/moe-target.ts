import type { JsonObject, Problem } from '@polygraft/tensor'
import { ModelError, throwIfAny } from '@polygraft/tensor'
import { fact, field } from './_config.js'
import { isRopePerLayerKind } from './_rope.js'
import { describeWindows, windowsOf } from './_window.js'
import { dimensionsOf } from './dimensions.js'
import { familyNamed } from './families.js'
import type { Family } from './family.js'

/** A mixture family by its `model_type`, or `auto` for the one that suits the dense family best. */
export type TargetName = 'auto' | 'mixtral' | 'qwen2_moe' | 'qwen3_moe' | 'granitemoe'

/**
 * The mixture family that a dense checkpoint becomes.
 * @throws ModelError "already-moe", "target-cannot-hold" or "bad-config", listing everything that stands in the way.
 */
export function moeTarget(dense: Family, config: JsonObject, wanted: TargetName = 'auto'): Family {
  if (dense.moe) throw new ModelError(alreadyMoe(dense))
  const name = wanted === 'auto' ? dense.targets[0] : wanted
  const target = name === undefined ? undefined : familyNamed(name)
  if (!target?.moe || !dense.targets.includes(target.modelType))
    throw new ModelError(wrongTarget(dense, String(name)))
  throwIfAny(targetProblems(dense, config, target))
  return target
}

function alreadyMoe(dense: Family): Problem {
  return {
    code: 'already-moe',
    message: `The checkpoint is a mixture of experts already (${dense.modelType})`,
    file: 'config.json',
    expected: 'a dense checkpoint',
    received: dense.architecture,
    next: 'Upcycle the dense base that it came from.',
  }
}

function wrongTarget(dense: Family, name: string): Problem {
  return {
    code: 'target-cannot-hold',
    message: `${name} cannot hold ${dense.modelType}`,
    expected: `one of ${dense.targets.join(', ')}`,
    received: name,
    next: 'Choose a listed target, or auto.',
  }
}

/** What of `config` the target has no place for. Each would change the model's outputs without a word. */
function targetProblems(dense: Family, config: JsonObject, target: Family): readonly Problem[] {
  const { numLayers, numHeads, headDim, hiddenSize } = dimensionsOf(dense, config)
  const windows = windowsOf(dense, config, numLayers)
  const others = dense.targets.filter((name) => name !== target.modelType)
  const refuse = (message: string, received: string): Problem => ({
    code: 'target-cannot-hold',
    message: `${target.modelType} ${message}`,
    file: 'config.json',
    received,
    next:
      others.length > 0
        ? `Try ${others.join(' or ')} as the target.`
        : 'No stock mixture of experts holds this model exactly.',
  })
  const problems: Problem[] = []
  const has = (value: Family['qkvBias']) => fact(dense, config, value)
  if (has(dense.qkvBias) && target.qkvBias === false)
    problems.push(refuse('has no bias on q, k and v', 'attention biases'))
  if (has(dense.outputBias) && target.outputBias === false)
    problems.push(refuse("has no bias on attention's output", 'attention_bias: true'))
  if (has(dense.mlpBias)) problems.push(refuse('has no bias in its experts', 'mlp_bias: true'))
  if (target.fixedHeadDim && headDim * numHeads !== hiddenSize)
    problems.push(
      refuse('needs head_dim = hidden_size / heads', `${headDim} * ${numHeads} for ${hiddenSize}`),
    )
  if (windows.some((size) => size !== null) && target.window === 'never')
    problems.push(refuse('has no sliding window', describeWindows(windows)))
  else if (windows.some((size) => size !== null) && windows.some((size) => size === null))
    problems.push(refuse('slides in every layer or in none (transformers 4)', describeWindows(windows)))
  if (isRopePerLayerKind(config))
    problems.push(refuse('has one RoPE for all layers', 'rope_parameters by kind of layer'))
  if (field(dense, config, 'quantization_config') !== undefined)
    problems.push({
      code: 'quantised',
      message: 'The checkpoint is quantised: its weights are no numbers to do arithmetic on',
      file: 'config.json',
      expected: 'no quantization_config',
      received: JSON.stringify(config.quantization_config),
      next: 'Use the unquantised checkpoint (BF16, F16 or F32).',
    })
  return problems
}
