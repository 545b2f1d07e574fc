import type { TargetName } from '@polygraft/architectures'
import { DTYPES } from './_mergekit-schema.js'
import type { MixtureDocument } from './_mixture-schema.js'
import type { Reader } from './_reader.js'
import type { Path } from './_yaml.js'
import type { MergePlan } from './merge-plan.js'

/** A mixture as mergekit-moe describes it. Plain data. */
export interface MixturePlan {
  readonly base: string
  /** The model that each expert comes from. */
  readonly experts: readonly string[]
  readonly topK: number
  /** How routers are drawn. */
  readonly gate: Gate
  readonly seed: number
  /** Whether the base's block is an expert that every token takes besides. */
  readonly shared: boolean
  /** Families that the recipe lets the mixture be of, the first that can hold it counting. */
  readonly targets: readonly TargetName[]
  readonly dtype?: NonNullable<MergePlan['dtype']>
}

/** `random`: N(0, 1). `uniform_random`: uniform within 1 / sqrt(H), as `torch.nn.Linear` begins. */
type Gate = 'random' | 'uniform_random'

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
  checkShared(shared, base, reader)
  return {
    base,
    experts,
    topK,
    gate: gateOf(recipe, reader),
    seed: recipe.seed ?? 0,
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
  reader: Reader,
): void {
  for (const [i, each] of shared.entries()) {
    const path = ['shared_experts', i]
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

function gateOf({ gate_mode: mode = 'hidden' }: MixtureDocument, reader: Reader): Gate {
  if (mode === 'random' || mode === 'uniform_random') return mode
  const reason =
    mode === 'cheap_embed'
      ? 'it needs a tokenizer for the prompts'
      : 'it needs the hidden states of a running model'
  reader.report('not-supported', `gate_mode ${mode} is not supported yet: ${reason}`, ['gate_mode'], {
    expected: 'random, uniform_random',
    received: mode,
    next: 'Draw the routers at random, and train them.',
  })
  return 'random'
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
