import type { TextTokenizer } from '@polygraft/model'
import { type Problem, throwIfAny } from '@polygraft/tensor'
import type { Document } from './parse-documents.js'

/** A document as tokens, and the token to come next at each; -1 where nothing is learnt. */
export interface Sequence {
  readonly tokens: Int32Array
  readonly targets: Int32Array
}

export interface EncodeOptions {
  /** For messages. */
  readonly file: string
  /** Most tokens of a document. */
  readonly context: number
  /** Whether a longer text is cut into several; one with a prompt never is. */
  readonly cut: boolean
  readonly vocabularySize: number
}

/**
 * Tokens and targets of documents.
 * @throws ModelError "too-long" and "token-out-of-range" with every document that is concerned.
 */
export function encodeDocuments(
  documents: readonly Document[],
  encoder: Pick<TextTokenizer, 'begin' | 'continue'>,
  { file, context, cut, vocabularySize }: EncodeOptions,
): readonly Sequence[] {
  const problems: Problem[] = []
  const sequences = documents.flatMap(({ prompt, text, line }) => {
    const asked = prompt === undefined ? [] : encoder.begin(prompt)
    const ids = prompt === undefined ? encoder.begin(text) : [...asked, ...encoder.continue(text)]
    const wrong = ids.find((id) => !(id >= 0 && id < vocabularySize))
    if (wrong !== undefined)
      problems.push({
        code: 'token-out-of-range',
        message: 'The tokenizer gives a token that the model does not have',
        file,
        line,
        expected: `ids below ${vocabularySize}`,
        received: `${wrong}`,
        next: 'Use the tokenizer that belongs to the model, or make the embedding larger.',
      })
    const isLong = ids.length > context
    if (isLong && (prompt !== undefined || !cut))
      problems.push({
        code: 'too-long',
        message: 'A document is longer than the context',
        file,
        line,
        expected: `at most ${context} tokens`,
        received: `${ids.length} tokens`,
        next:
          prompt === undefined
            ? 'Cut long texts into several with --cut, or choose a longer --context.'
            : 'Choose a longer --context, or leave the document out.',
      })
    return isLong ? pieces(ids, context) : [sequenceOf(ids, asked.length)]
  })
  throwIfAny(problems)
  // A single token has no next one.
  return sequences.filter(({ targets }) => targets.some((target) => target >= 0))
}

function pieces(ids: readonly number[], context: number): Sequence[] {
  const count = Math.ceil(ids.length / context)
  return Array.from({ length: count }, (_, i) => sequenceOf(ids.slice(i * context, (i + 1) * context), 0))
}

/** Nothing before the last of the `asked` tokens is learnt. */
function sequenceOf(ids: readonly number[], asked: number): Sequence {
  const targets = Int32Array.from(ids, (_, i) => (i + 1 < asked ? -1 : (ids[i + 1] ?? -1)))
  return { tokens: Int32Array.from(ids), targets }
}
