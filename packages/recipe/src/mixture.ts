import type { TargetName } from '@polygraft/architectures'
import { DTYPES } from './_mergekit-schema.js'
import type { MixtureDocument } from './_mixture-schema.js'
import type { ExpertPrompts, PromptGate } from './_prompt-gates.js'
import type { Reader } from './_reader.js'
import type { Path } from './_yaml.js'
import type { MergePlan } from './merge-plan.js'

/** A mixture as mergekit-moe describes it. Plain data. */
export interface MixturePlan {
  readonly base: string
  /** The model that each expert comes from. */
  readonly experts: readonly string[]
  readonly topK: number
  /** How routers are made. */
  readonly gate: Gate
  readonly seed: number
  /** Of each expert, where routers are made of prompts. */
  readonly prompts: readonly ExpertPrompts[]
  /** Whether the base's block is an expert that every token takes besides. */
  readonly shared: boolean
  /** Families that the recipe lets the mixture be of, the first that can hold it counting. */
  readonly targets: readonly TargetName[]
  readonly dtype?: NonNullable<MergePlan['dtype']>
}

/**
 * `random`: N(0, 1). `uniform_random`: uniform within 1 / sqrt(H), as `torch.nn.Linear` begins. The others are made of prompts: of their tokens'
 * embeddings, or of what enters each layer, at the last token or on average.
 */
export type Gate = 'random' | 'uniform_random' | PromptGate

/** mergekit's names of the output's architectures, in the order in which it tries them; undefined is not done here. */
const ARCHITECTURES: readonly (readonly [name: string, target: TargetName | undefined])[] = [
  ['Mixtral', 'mixtral'],
  ['DeepSeek MoE', undefined],
  ['Qwen MoE', 'qwen2_moe'],
  ['Qwen3 MoE', 'qwen3_moe'],
]

/** Reads a checked config of mergekit-moe. Everything that it asks for and that is not done here is a problem that names it. */
export function planMixture(recipe: MixtureDocument, reader: Reader): MixturePlan {
  const base = reader.model(recipe.base_model, ['base_model'])
  const experts = recipe.experts.map((each, i) => expertOf(each, ['experts', i], reader))
  const shared = recipe.shared_experts ?? []
  const topK = recipe.experts_per_token ?? 2
  if (topK > experts.length)
    reader.report('bad-value', 'A token cannot take more experts than there are', ['experts_per_token'], {
      expected: `1 to ${experts.length}`,
      received: `${topK}${recipe.experts_per_token === undefined ? ', the default' : ''}`,
    })
  const gate = gateOf(recipe)
  checkShared(shared, base, gate, reader)
  return {
    base,
    experts,
    topK,
    gate,
    seed: recipe.seed ?? 0,
    prompts: isDrawn(gate) ? [] : promptsOf(recipe, reader),
    shared: shared.length > 0,
    targets: targetsOf(recipe, reader),
    ...(recipe.dtype ? { dtype: DTYPES[recipe.dtype] } : {}),
  }
}

function expertOf(
  { source_model: source, noise_scale: noise, residual_scale: scale }: MixtureDocument['experts'][number],
  path: Path,
  reader: Reader,
): string {
  const refuse = (key: string) =>
    reader.report(
      'not-supported',
      `${key} is not supported: a delta that is grafted later would have to know of it`,
      [...path, key],
    )
  if (noise !== undefined) refuse('noise_scale')
  if (scale !== undefined) refuse('residual_scale')
  return reader.model(source, [...path, 'source_model'])
}

function checkShared(
  shared: readonly MixtureDocument['experts'][number][],
  base: string,
  gate: Gate,
  reader: Reader,
): void {
  for (const [i, each] of shared.entries()) {
    const path = ['shared_experts', i]
    for (const key of ['positive_prompts', 'negative_prompts'] as const)
      if (each[key] && !isDrawn(gate))
        reader.report('not-supported', 'The gate of a shared expert is not made of prompts', [...path, key], {
          next: 'Leave its prompts out: it begins with half the weight for every token.',
        })
    const source = expertOf(each, path, reader)
    if (i > 0) reader.report('not-supported', 'A mixture has one shared expert at most', path)
    else if (source !== base)
      reader.report(
        'not-supported',
        'The shared expert can only come from the base',
        [...path, 'source_model'],
        {
          expected: base,
          received: source,
        },
      )
  }
}

/** What mergekit does by the name of `hidden`, its default, is `hidden_last`. */
function gateOf({ gate_mode: mode = 'hidden' }: MixtureDocument): Gate {
  return mode === 'hidden' ? 'hidden_last' : mode
}

/** Whether the routers are random. */
export function isDrawn(gate: Gate): gate is 'random' | 'uniform_random' {
  return gate === 'random' || gate === 'uniform_random'
}

/** The prompts of all experts; those without any, and prompts that are the same for all, are problems. */
function promptsOf({ experts, gate_mode: mode }: MixtureDocument, reader: Reader): ExpertPrompts[] {
  const next = 'Give prompts that are typical of what the expert is for, or gate_mode: random.'
  const used = `gate_mode ${mode ?? 'hidden, the default,'} makes routers of prompts`
  for (const [i, { positive_prompts: positive }] of experts.entries())
    if (!positive)
      reader.report('missing-key', `${used}, and this expert has none`, ['experts', i], {
        expected: 'positive_prompts',
        next,
      })
  const prompts = experts.map(({ positive_prompts: positive = [], negative_prompts: negative = [] }) => ({
    positive,
    negative,
  }))
  const [first, ...others] = prompts.map((each) => JSON.stringify(each))
  if (others.length > 0 && prompts[0]!.positive.length > 0 && others.every((other) => other === first))
    reader.report('bad-value', 'The prompts are the same for all experts', ['experts'], {
      expected: 'prompts of its own for each expert',
      next,
    })
  return prompts
}

function targetsOf({ architecture: wanted, shared_experts: shared = [] }: MixtureDocument, reader: Reader) {
  const named = ARCHITECTURES.filter(
    ([name]) => wanted === undefined || name.toLowerCase().startsWith(wanted.toLowerCase()),
  )
  const targets = named.flatMap(([, target]) => (target === undefined ? [] : [target]))
  if (targets.length === 0)
    reader.report('not-supported', `The architecture ${wanted} is not supported`, ['architecture'], {
      expected: ARCHITECTURES.flatMap(([name, target]) => (target ? [name] : [])).join(', '),
      received: `${wanted}`,
    })
  return shared.length > 0 ? targets.filter((target) => target === 'qwen2_moe') : targets
}
