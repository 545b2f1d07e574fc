import { dimensionsOf, familyOf } from '@polygraft/architectures'
import { CONDITION_NUMBER_WARNING, conditionNumber } from '@polygraft/routing'
import { type Checkpoint, ModelError, type Problem } from '@polygraft/tensor'
import type { PromptState, ReadPrompts } from './prompts.js'

/*
 * Letters: E experts, H hidden, L layers.
 */

/** What mergekit's gate modes take of prompts; `hidden` is what mergekit does by that name. */
const STATES = { cheap_embed: 'embedding', hidden_last: 'last', hidden_avg: 'average' } as const
export type PromptGate = keyof typeof STATES

/** The prompts of an expert. */
export interface ExpertPrompts {
  readonly positive: readonly string[]
  readonly negative: readonly string[]
}

/**
 * Routers [E, H] of every layer: row e is the direction of what stands for the expert's positive prompts, less that of its negative ones
 * (with `cheap_embed` the directions are subtracted).
 * A row is 0 where these are the same, as what enters the first layer is for prompts with the same last token.
 * @throws ModelError "no-runtime" without `read`; "same-prompts" with every expert that is left without a direction in any layer.
 */
export async function promptGates(
  base: Checkpoint,
  { gate, prompts }: { readonly gate: PromptGate; readonly prompts: readonly ExpertPrompts[] },
  read: ReadPrompts | undefined,
): Promise<Float32Array[]> {
  if (!read)
    throw new ModelError({
      code: 'no-runtime',
      message: `gate_mode ${gate} reads prompts with a model that runs, and there is none here`,
      next: 'Give buildRecipe a function that reads prompts, or draw the routers at random.',
    })
  const { numLayers, hiddenSize } = dimensionsOf(familyOf(base.config), base.config)
  const state: PromptState = STATES[gate]
  const groups = prompts.flatMap(({ positive, negative }) => [
    positive,
    ...(negative.length ? [negative] : []),
  ])
  const found = [...(await read(base, groups, state))]
  const pairs = prompts.map(({ negative }) => [found.shift()!, negative.length ? found.shift()! : undefined])
  const gates = Array.from({ length: numLayers }, () => new Float32Array(prompts.length * hiddenSize))
  const lost: number[] = []
  for (const [e, [positive, negative]] of pairs.entries()) {
    const directions = positive!.map((each, at) => directionOf(each, negative?.[at], state))
    if (directions.every((direction) => !direction)) lost.push(e)
    for (const [layer, rows] of gates.entries())
      rows.set(directions[state === 'embedding' ? 0 : layer] ?? [], e * hiddenSize)
  }
  if (lost.length > 0) throw new ModelError(samePrompts(lost))
  return gates
}

/** A warning that names the layers whose experts can hardly be told apart. */
export function gateWarnings(gates: readonly Float32Array[], experts: number): Problem[] {
  const alike = [...gates.keys()].filter(
    (layer) =>
      !(conditionNumber(gates[layer]!, experts, gates[layer]!.length / experts) <= CONDITION_NUMBER_WARNING),
  )
  if (alike.length === 0) return []
  return [
    {
      code: 'alike-experts',
      message: 'Experts can hardly be told apart by their prompts, and some may be used little',
      expected: `routers with a condition number of at most ${CONDITION_NUMBER_WARNING}`,
      received: `more in layer${alike.length > 1 ? 's' : ''} ${alike.join(', ')}`,
      next: 'Give prompts that differ more, or negative prompts.',
    },
  ]
}

function directionOf(
  positive: Float32Array,
  negative: Float32Array | undefined,
  state: PromptState,
): Float64Array | undefined {
  const [plus, minus] = [positive, negative].map((values) => values && Float64Array.from(values))
  if (!minus) return unit(plus!)
  const [a, b] = state === 'embedding' ? [unit(plus!), unit(minus)] : [plus, minus]
  return a && b && unit(a.map((x, h) => x - b[h]!))
}

function unit(values: Float64Array): Float64Array | undefined {
  const norm = Math.sqrt(values.reduce((sum, x) => sum + x * x, 0))
  return norm > 0 && Number.isFinite(norm) ? values.map((x) => x / norm) : undefined
}

function samePrompts(lost: readonly number[]): Problem {
  return {
    code: 'same-prompts',
    message:
      'Prompts have no direction: what stands for the positive and the negative ones is the same, or is not finite',
    expected: 'positive and negative prompts that differ',
    next: 'Give other negative prompts, or none.',
    received: lost.map((e) => `none for expert ${e}`).join(', '),
  }
}
