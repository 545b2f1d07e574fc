import {
  dimensionsOf,
  expectedTensors,
  familyOf,
  isSparseLayer,
  moeConfig,
  moeTarget,
  tensorProblems,
} from '@polygraft/architectures'
import { alikeExperts } from '@polygraft/routing'
import type { Checkpoint, Problem } from '@polygraft/tensor'
import { ModelError } from '@polygraft/tensor'
import { modelProblems } from './_model-problems.js'
import { inputsOf, optionProblems, resolveOptions, routerProblems, type UpcycleOptions } from './options.js'

/**
 * Everything that keeps `upcycle` from working, found together for a dry run; empty when nothing does. Codes: "bad-option",
 * "is-delta", "unsupported-family", "already-moe", "target-cannot-hold", "quantised", "bad-config", "missing-tensor", "unexpected-tensor",
 * "shape-mismatch", "not-float", and "family-mismatch", "config-mismatch" for a model that an expert is to come from.
 */
export function upcycleProblems(given: Checkpoint, options: UpcycleOptions): readonly Problem[] {
  const inputs = inputsOf(given, options)
  const checkpoint = inputs.base
  const { config, tensors } = checkpoint
  const resolved = resolveOptions(inputs.options)
  const problems: Problem[] = [...optionProblems(resolved)]
  if (checkpoint.provenance.recipe.some(({ op }) => op === 'delta')) problems.push(HOLDS_DELTA)
  const dense = attempt(problems, () => familyOf(config))
  if (!dense) return problems
  const target = attempt(problems, () => moeTarget(dense, config, resolved.target))
  const readable = !problems.some(({ code }) => code === 'bad-config')
  if (!dense.moe && readable) problems.push(...tensorProblems(dense, config, tensors))
  if (!dense.moe && readable)
    for (const [expert, model] of resolved.expertsFrom)
      attempt(problems, () => problems.push(...modelProblems(checkpoint, expert, model, resolved.others)))
  if (target) {
    const options = { ...resolved, numExperts: resolved.experts }
    const written = attempt(problems, () => moeConfig(config, target, options))
    if (written && problems.length === 0)
      attempt(problems, () => {
        expectedTensors(target, written)
        const { numLayers, hiddenSize } = dimensionsOf(target, written)
        const layers = [...Array(numLayers).keys()].filter((layer) => isSparseLayer(target, written, layer))
        problems.push(...routerProblems(resolved, layers, hiddenSize))
      })
  }
  return problems
}

/** A checkpoint of differences has nothing to copy. */
export const HOLDS_DELTA: Problem = {
  code: 'is-delta',
  message: 'The checkpoint holds a delta, post - base, and no model',
  next: 'Upcycle the base, and graft the delta later.',
}

/** `work`'s result; on a ModelError its problems go to `problems`. */
function attempt<T>(problems: Problem[], work: () => T): T | undefined {
  try {
    return work()
  } catch (error) {
    if (!(error instanceof ModelError)) throw error
    problems.push(...error.problems)
    return undefined
  }
}

/**
 * What will work and may still surprise: "no-router-gradient", "not-function-preserving", "alike-experts". For people to read; nothing stops on it.
 */
export function upcycleWarnings(options: UpcycleOptions): readonly Problem[] {
  const { topK, experts, normTopkProb, expertInit, granularity, expertsFrom } = resolveOptions(options)
  const warnings: Problem[] = []
  if (topK === 1 && experts > 1 && normTopkProb)
    warnings.push({
      code: 'no-router-gradient',
      message:
        'With one expert per token and a renormalising gate the language-model loss gives the router no gradient',
      next: 'Train with topK >= 2, or with normTopkProb: false, or with a loss on the languages.',
    })
  if (!normTopkProb)
    warnings.push({
      code: 'not-function-preserving',
      message:
        'A gate that does not renormalise scales the experts down: the mixture is not the dense model any more',
      next: 'Leave normTopkProb on unless training repairs it.',
    })
  if (!Number.isInteger(Math.log2(granularity)))
    warnings.push({
      code: 'rounded',
      message: `The down projection times ${granularity} is rounded where it is stored: the mixture is the dense model only up to that`,
      next: 'Use a power of two to be exact.',
    })
  if (expertInit.kind === 'drop' && experts > 1)
    warnings.push({
      code: 'not-function-preserving',
      message: 'Neurons that are drawn anew change what the model computes before any training',
      next: 'Train all experts, or use copies.',
    })
  if (expertsFrom.size > 0)
    warnings.push({
      code: 'not-function-preserving',
      message: 'With experts of several models the mixture is none of them before its router is trained',
      next: 'Train the router, as Branch-Train-MiX does.',
    })
  if (expertInit.kind === 'noise' && experts > 1)
    warnings.push({
      code: 'not-function-preserving',
      message: 'Noise on the experts changes what the model computes before any training',
      next: 'Use copies, or a std far below that of the weights.',
    })
  return [...warnings, ...alikeWarnings(options)]
}

/** Of given routers: layers and the pairs of experts that they cannot tell apart. */
function alikeWarnings(options: UpcycleOptions): readonly Problem[] {
  const { router, experts } = resolveOptions(options)
  if (typeof router === 'string') return []
  const alike = [...router.values].flatMap(([layer, values]) =>
    alikeExperts(values, experts, values.length / experts).map(([a, b]) => `${a} and ${b} in layer ${layer}`),
  )
  if (alike.length === 0) return []
  return [
    {
      code: 'alike-experts',
      message: 'A router cannot tell some experts apart: they get the same tokens',
      received: `experts ${alike.join(', ')}`,
      next: 'Give those experts text that differs more, or more of it.',
    },
  ]
}
