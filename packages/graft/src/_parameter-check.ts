import { dimensionsOf, familyOf, isSparseLayer, roleOf } from '@polygraft/architectures'
import { effectiveTensors, isTied, isVocabularyTensor } from '@polygraft/delta'
import { insertedFrom, layoutOf, piecesOf } from '@polygraft/experts'
import { type Checkpoint, numel } from '@polygraft/tensor'
import { expansionOf } from './_expansion.js'
import type { Check } from './verify-report.js'

/**
 * N + (E - 1) * 3HI * |S| + E * g * H * |S| parameters, for the N of the dense model at the output's vocabulary and tying, and
 * the set S of layers with experts in g parts each; (3 * shared + 1) * H * |S| for a shared expert; inserted layers; and
 * biases that the dense model does not have.
 */
export function parameterCheck(output: Checkpoint, base: Checkpoint): Check {
  const { config } = output
  const family = familyOf(config)
  const layout = layoutOf(config, base.config, expansionOf(output, base.config, {}))
  const { numExperts, numLayers, hiddenSize, expertIntermediateSize, sharedExpertSize, vocabularySize } =
    dimensionsOf(family, config)
  let dense = 0
  for (const [name, { shape }] of effectiveTensors(base, !isTied(output)))
    dense += isVocabularyTensor(family, name) ? vocabularySize * shape[1]! : numel(shape)
  const { granularity, layers } = layout.expansion
  const sparseLayers = Array.from({ length: numLayers }, (_, layer) => layer).filter((layer) =>
    isSparseLayer(family, config, layer),
  )
  const sparse = sparseLayers.length
  const replaced = sparseLayers.filter((layer) => layers?.[layer] !== null).length
  const hasShared = family.tensors.some(({ group }) => group === 'shared_expert')
  const block = 3 * hiddenSize * expertIntermediateSize
  const experts = (numExperts * sparse - granularity * replaced) * block
  const routers = numExperts * hiddenSize * sparse
  const shared = hasShared ? (3 * sharedExpertSize + 1) * hiddenSize * sparse : 0
  let actual = 0
  let added = 0
  for (const [name, { shape }] of effectiveTensors(output, false)) {
    actual += numel(shape)
    const isBias = roleOf(family, name).part?.endsWith('_bias') && piecesOf(layout, name).length === 0
    const copied = insertedFrom(layout, name)
    if (isBias || copied) added += numel(copied ? (base.tensors.get(copied.dense)?.shape ?? shape) : shape)
  }
  const expected = dense + added + (family.moe ? experts + routers + shared : 0)
  const detail =
    `${actual} parameters` +
    (actual === expected ? ' as the dense model, experts and routers make' : `, expected ${expected}`)
  return { name: 'parameters', ok: actual === expected, detail }
}
