import { readFile } from 'node:fs/promises'
import { fsError } from '@polygraft/tensor-io/node'
import { parseDocuments } from '@polygraft/train'
import { InvalidArgumentError, Option } from 'commander'

/** A file of text in one language. */
export interface TextArgument {
  readonly language: string
  readonly path: string
}

/** `el=text.txt` */
function parseText(text: string): TextArgument {
  const match = /^([^=]+)=(.+)$/.exec(text)
  if (!match) throw new InvalidArgumentError('Expected language=file, such as el=greek.txt.')
  return { language: match[1]!, path: match[2]! }
}

/** `--text`, once for each file. */
export function textOption(help = 'text or .jsonl in a language; once for each file'): Option {
  return new Option('--text <language=file>', help).argParser(
    (text: string, earlier: readonly TextArgument[] = []) => [...earlier, parseText(text)],
  )
}

/**
 * The documents of the files by language, in the order of the arguments; an answer follows its prompt.
 * @throws ModelError "io", and those of `parseDocuments`.
 */
export async function readTexts(args: readonly TextArgument[]): Promise<Map<string, string[]>> {
  const texts = new Map<string, string[]>()
  for (const { language, path } of args) {
    const content = await readFile(path, 'utf8').catch((error) => {
      throw fsError(error, 'The text cannot be read', path)
    })
    const documents = parseDocuments(content, path)
    const plain = documents.map(({ prompt, text }) => (prompt === undefined ? text : `${prompt} ${text}`))
    texts.set(language, [...(texts.get(language) ?? []), ...plain])
  }
  return texts
}
