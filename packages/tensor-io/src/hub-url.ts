import { ModelError } from '@polygraft/tensor'

const HUB = 'https://huggingface.co'

/**
 * `hf:org/name@rev` as the address under which the Hub serves single files, for `openUrl`.
 * @param endpoint A mirror's address, in place of the Hub's.
 * @throws ModelError "bad-location".
 */
export function hubUrl(location: string, endpoint = HUB): string {
  const match = /^hf:(\w[\w.-]*\/\w[\w.-]*)(?:@(\w[\w./-]*))?$/.exec(location)
  if (!match)
    throw new ModelError({
      code: 'bad-location',
      message: 'Not a model on the Hub',
      expected: 'hf:org/name or hf:org/name@revision',
      received: location,
    })
  return `${endpoint.replace(/\/$/, '')}/${match[1]}/resolve/${encodeURIComponent(match[2] ?? 'main')}/`
}
