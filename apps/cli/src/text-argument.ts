import { InvalidArgumentError } from 'commander'

/** A file of text in one language. */
export interface TextArgument {
  readonly language: string
  readonly path: string
}

/** `el=text.txt` */
export function parseText(text: string): TextArgument {
  const match = /^([^=]+)=(.+)$/.exec(text)
  if (!match) throw new InvalidArgumentError('Expected language=file, such as el=greek.txt.')
  return { language: match[1]!, path: match[2]! }
}
