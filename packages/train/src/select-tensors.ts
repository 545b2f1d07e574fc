import { ModelError, type Problem, throwIfAny } from '@polygraft/tensor'
import { type DecoderSpec, tensorNames } from './decoder-spec.js'

/** A factor on the rate of the tensors that a pattern names. */
export interface GroupRate {
  readonly pattern: string
  readonly factor: number
}

/** A stage of the method: what it trains. */
export type Stage = 'cpt' | 'review' | 'sft'

export interface Selection {
  /** Patterns of what is trained, in place of the stage's own. */
  readonly train?: readonly string[]
  readonly freeze?: readonly string[]
  readonly rates?: readonly GroupRate[]
}

/**
 * The trained tensors with the factor on each one's rate. `cpt` trains the new experts (all but 0) and routers of a mixture, and all of a
 * dense model; `review` the routers; `sft` all. Patterns match whole names; `*` stands for any characters; of rates the last that matches counts.
 * @throws ModelError "no-match" with every pattern that names no tensor; "nothing-to-train".
 */
export function selectTensors(
  spec: DecoderSpec,
  stage: Stage,
  selection: Selection,
): ReadonlyMap<string, number> {
  const { train, freeze = [], rates = [] } = selection
  const names = tensorNames(spec)
  const patterns = [...(train ?? []), ...freeze, ...rates.map(({ pattern }) => pattern)]
  throwIfAny(
    patterns.filter((pattern) => !names.some(matcher(pattern))).map((pattern) => noMatch(pattern, names)),
  )
  const own = stageNames(spec, stage)
  const isTrained = (name: string) =>
    (train ? train.some((pattern) => matcher(pattern)(name)) : own.has(name)) &&
    !freeze.some((pattern) => matcher(pattern)(name))
  const trained = names.filter(isTrained)
  if (trained.length === 0)
    throw new ModelError({
      code: 'nothing-to-train',
      message: stage === 'review' ? 'The model has no router' : 'Every tensor is frozen',
      next: stage === 'review' ? 'Review a mixture of experts; see polygraft upcycle.' : 'Freeze less.',
    })
  return new Map(
    trained.map((name) => [name, rates.findLast(({ pattern }) => matcher(pattern)(name))?.factor ?? 1]),
  )
}

function stageNames(spec: DecoderSpec, stage: Stage): ReadonlySet<string> {
  const routers = spec.layers.flatMap(({ router }) => (router ? [router.weight] : []))
  if (stage === 'review') return new Set(routers)
  if (stage === 'sft' || routers.length === 0) return new Set(tensorNames(spec))
  const added = spec.layers.flatMap(({ experts = [] }) => experts.slice(1))
  return new Set([
    ...routers,
    ...added.flatMap(({ gate, up, down }) => [gate.weight, up.weight, down.weight]),
  ])
}

function matcher(pattern: string): (name: string) => boolean {
  const parts = pattern.split('*').map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'))
  const expression = new RegExp(`^${parts.join('.*')}$`)
  return (name) => expression.test(name)
}

function noMatch(pattern: string, names: readonly string[]): Problem {
  return {
    code: 'no-match',
    message: 'A pattern names no tensor',
    expected: `part of such names: ${names.slice(0, 3).join(', ')}, ...`,
    received: pattern,
    next: 'A pattern is a whole name in which * stands for any characters, such as *.self_attn.*',
  }
}
