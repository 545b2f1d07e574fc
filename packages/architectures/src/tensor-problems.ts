import type { JsonObject, Problem, StateDict, Tensor } from '@polygraft/tensor'
import { isFloat } from '@polygraft/tensor'
import { expectedTensors } from './expected-tensors.js'
import type { Family } from './family.js'
import { roleOf } from './role.js'

/**
 * Where `tensors` is not what a stock model of that config stores: "missing-tensor", "unexpected-tensor", "shape-mismatch",
 * "not-float". Buffers such as `rotary_emb.inv_freq` may be there or not; so may the head of a model with tied embeddings.
 * @throws ModelError "bad-config".
 */
export function tensorProblems(family: Family, config: JsonObject, tensors: StateDict): readonly Problem[] {
  const expected = expectedTensors(family, config)
  const problems: Problem[] = []
  for (const [name, shape] of expected) {
    const tensor = tensors.get(name)
    problems.push(...(tensor ? wrongTensor(name, tensor, shape) : [missing(family, name, shape)]))
  }
  for (const [name, tensor] of tensors) {
    if (expected.has(name) || roleOf(family, name).group === 'buffer') continue
    const shape = tiedHeadShape(family, config, name, expected)
    problems.push(...(shape ? wrongTensor(name, tensor, shape) : [unexpected(family, name, tensor)]))
  }
  return problems
}

/** A tied head is the embedding, but some writers store it again. */
function tiedHeadShape(
  family: Family,
  config: JsonObject,
  name: string,
  expected: ReadonlyMap<string, readonly number[]>,
): readonly number[] | undefined {
  if (roleOf(family, name).group !== 'head' || config.tie_word_embeddings !== true) return undefined
  return [...expected].find(([each]) => roleOf(family, each).group === 'embedding')?.[1]
}

function wrongTensor(name: string, tensor: Tensor, shape: readonly number[]): readonly Problem[] {
  const problems: Problem[] = []
  if (tensor.shape.join() !== shape.join())
    problems.push({
      code: 'shape-mismatch',
      message: 'The shape is not what the config says',
      tensor: name,
      expected: `[${shape.join(', ')}]`,
      received: `[${tensor.shape.join(', ')}]`,
      next: 'Use the config.json that belongs to these weights.',
    })
  if (!isFloat(tensor.dtype))
    problems.push({
      code: 'not-float',
      message: 'The tensor is quantised or holds no real numbers',
      tensor: name,
      expected: 'BF16, F16, F32 or F64',
      received: tensor.dtype,
      next: 'Use the unquantised checkpoint.',
    })
  return problems
}

function missing(family: Family, name: string, shape: readonly number[]): Problem {
  return {
    code: 'missing-tensor',
    message: `A ${family.architecture} of this config has a tensor that is not there`,
    tensor: name,
    expected: `[${shape.join(', ')}]`,
    received: 'nothing',
    next: 'Use a complete checkpoint with the config.json that belongs to it.',
  }
}

/** What transformers 5 calls all experts of a layer in memory; its `save_pretrained` writes them one by one. */
const FUSED = /\.experts\.(gate_up_proj|down_proj)$/

function unexpected(family: Family, name: string, tensor: Tensor): Problem {
  return {
    code: 'unexpected-tensor',
    message: `A ${family.architecture} of this config has no such tensor`,
    tensor: name,
    received: `${tensor.dtype} [${tensor.shape.join(', ')}]`,
    next: FUSED.test(name)
      ? "Save the model with transformers' save_pretrained, which splits fused experts."
      : 'Leave it out on purpose (allow), or use the config.json that belongs to these weights.',
  }
}
