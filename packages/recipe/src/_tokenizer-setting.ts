import { ModelError } from '@polygraft/tensor'
import type { MergeEnvironment } from './_merge-environment.js'
import type { TokenizerSetting } from './align-models.js'
import type { MergePlan, PlannedToken } from './merge-plan.js'

export function tokenizerSetting(
  plan: MergePlan,
  names: readonly string[],
  { models, yaml }: MergeEnvironment,
): TokenizerSetting | undefined {
  if (!plan.tokenizer) return undefined
  const { source, tokens, padToMultipleOf } = plan.tokenizer
  const indexOf = (token: string, name: string): number => {
    const index = names.indexOf(name)
    if (index >= 0) return index
    throw new ModelError({
      code: 'bad-value',
      message: `The embedding of token ${JSON.stringify(token)} is to come from a model that is not merged`,
      ...yaml.place(['tokenizer', 'tokens', token]),
      expected: names.join(', '),
      received: name,
    })
  }
  const settings = Object.entries(tokens).map(([token, { source: from, force }]: [string, PlannedToken]) => {
    const resolved = from.kind === 'zero' ? from : { ...from, model: indexOf(token, from.model) }
    return [token, { source: resolved, force }] as const
  })
  const donor = (name: string) => {
    const index = names.indexOf(name)
    return { model: index >= 0 ? index : { label: name, checkpoint: models.get(name)! } }
  }
  return {
    source: source === 'union' ? source : donor(source === 'base' ? names[0]! : source.model),
    tokens: new Map(settings),
    ...(padToMultipleOf === undefined ? {} : { padToMultipleOf }),
  }
}
