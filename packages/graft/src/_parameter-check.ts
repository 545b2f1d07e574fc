import { dimensionsOf, familyOf, isSparseLayer } from '@polygraft/architectures'
import { effectiveTensors, isTied, isVocabularyTensor } from '@polygraft/delta'
import { type Checkpoint, numel } from '@polygraft/tensor'
import type { Check } from './verify-report.js'

/**
 * N + (E - 1) * 3HI * |S| + E * H * |S| parameters, for the N of the dense model at the output's vocabulary and tying, and
 * the set S of layers with experts; and (3 * shared + 1) * H * |S| for a shared expert.
 */
export function parameterCheck(output: Checkpoint, base: Checkpoint): Check {
  const family = familyOf(output.config)
  const { numExperts, numLayers, hiddenSize, expertIntermediateSize, sharedExpertSize, vocabularySize } =
    dimensionsOf(family, output.config)
  let dense = 0
  for (const [name, { shape }] of effectiveTensors(base, !isTied(output)))
    dense += isVocabularyTensor(family, name) ? vocabularySize * shape[1]! : numel(shape)
  const layers = Array.from({ length: numLayers }, (_, layer) => layer)
  const sparse = layers.filter((layer) => isSparseLayer(family, output.config, layer)).length
  const hasShared = family.tensors.some(({ group }) => group === 'shared_expert')
  const experts = (numExperts - 1) * 3 * hiddenSize * expertIntermediateSize * sparse
  const routers = numExperts * hiddenSize * sparse
  const shared = hasShared ? (3 * sharedExpertSize + 1) * hiddenSize * sparse : 0
  const expected = dense + (family.moe ? experts + routers + shared : 0)
  let actual = 0
  for (const { shape } of effectiveTensors(output, false).values()) actual += numel(shape)
  const detail =
    `${actual} parameters` +
    (actual === expected ? ' as the dense model, experts and routers make' : `, expected ${expected}`)
  return { name: 'parameters', ok: actual === expected, detail }
}
