import type { MergekitRecipe } from './_mergekit-schema.js'
import type { Reader } from './_reader.js'
import type { Path } from './_yaml.js'
import type { PlannedToken, PlannedTokenizer } from './merge-plan.js'

type Tokenizer = NonNullable<MergekitRecipe['tokenizer']>
type Source = NonNullable<Tokenizer['source']>
type Token = NonNullable<Tokenizer['tokens']>[string]

/** What a recipe wants of the tokenizer, in either of the two ways to say so. */
export function readTokenizer(
  { tokenizer, tokenizer_source: source }: Pick<MergekitRecipe, 'tokenizer' | 'tokenizer_source'>,
  above: Path,
  reader: Reader,
): PlannedTokenizer | undefined {
  if (tokenizer && source !== undefined)
    reader.report('bad-recipe', 'Give either tokenizer or tokenizer_source', [...above, 'tokenizer_source'])
  if (tokenizer) return tokenizerOf(tokenizer, [...above, 'tokenizer'], reader)
  if (source === undefined) return undefined
  return { source: sourceOf(source, [...above, 'tokenizer_source'], reader), tokens: {} }
}

function tokenizerOf(
  { source = 'union', tokens = {}, pad_to_multiple_of: multiple }: Tokenizer,
  path: Path,
  reader: Reader,
): PlannedTokenizer {
  const settings = Object.entries(tokens).flatMap(([token, each]) => {
    const setting = tokenOf(each, [...path, 'tokens', token], reader)
    return setting ? [[token, setting] as const] : []
  })
  return {
    source: sourceOf(source, [...path, 'source'], reader),
    tokens: Object.fromEntries(settings),
    ...(multiple ? { padToMultipleOf: multiple } : {}),
  }
}

function sourceOf(source: Source, path: Path, reader: Reader): PlannedTokenizer['source'] {
  return source === 'union' || source === 'base' ? source : { model: reader.model(source, path) }
}

function tokenOf({ source, force = false }: Token, path: Path, reader: Reader): PlannedToken | undefined {
  if (source === undefined) {
    reader.report('missing-key', 'source is missing: nothing says whose embedding the token gets', path)
    return undefined
  }
  const at = [...path, 'source']
  if (typeof source === 'string' || !('kind' in source))
    return { source: { kind: 'model', model: reader.model(source, at) }, force }
  if (source.kind === 'zero') return { source, force }
  const { token, token_id: id } = source
  if ((token === undefined) === (id === undefined)) {
    reader.report('bad-value', 'A token is named by exactly one of token and token_id', at)
    return undefined
  }
  const model = reader.model(source.model, [...at, 'model'])
  return { source: { kind: 'token', model, token: token ?? id! }, force }
}
