import { Tokenizer } from '@huggingface/tokenizers'
import { ModelError } from '@polygraft/tensor'

/** Text to token ids. */
export interface TextEncoder {
  /** A text from its beginning, with what the tokenizer puts before one (<bos>), once. */
  begin(text: string): readonly number[]
  /** A text that goes on. */
  continue(text: string): readonly number[]
}

/**
 * The encoder of a checkpoint's `tokenizer.json` and `tokenizer_config.json`.
 * @throws ModelError "bad-tokenizer"
 */
export function createTextEncoder(json: string, configJson: string): TextEncoder {
  try {
    const tokenizer = new Tokenizer(JSON.parse(json), JSON.parse(configJson))
    const encode = (text: string, special: boolean) =>
      tokenizer.encode(text, { add_special_tokens: special }).ids
    // The part before the text of what a tokenizer adds to one.
    const plain = encode('a', false)
    const whole = encode('a', true)
    const prefix = whole.slice(
      0,
      Math.max(
        0,
        whole.findIndex((_, i) => plain.every((id, j) => whole[i + j] === id)),
      ),
    )
    return {
      begin(text) {
        const ids = encode(text, false)
        return prefix.every((id, i) => ids[i] === id) ? ids : [...prefix, ...ids]
      },
      continue: (text) => encode(text, false),
    }
  } catch (cause) {
    throw new ModelError(
      {
        code: 'bad-tokenizer',
        message: 'The tokenizer cannot be used',
        file: 'tokenizer.json',
        received: cause instanceof Error ? cause.message : String(cause),
      },
      { cause },
    )
  }
}
