/** A fenced block of a Markdown text: its language, its lines without the fences, and where these stand in the text. */
export interface Block {
  readonly language: string
  readonly code: string
  /** Half-open range of `code` in the text. */
  readonly begin: number
  readonly end: number
}

/** The fenced blocks of `markdown`, in order. */
export function parseBlocks(markdown: string): readonly Block[] {
  return [...markdown.matchAll(/^```(\w*)[^\n]*\n([\s\S]*?)^```[^\S\n]*$/gm)].map((match) => {
    const begin = match.index + match[0].indexOf('\n') + 1
    return { language: match[1] ?? '', code: match[2] ?? '', begin, end: begin + (match[2] ?? '').length }
  })
}

/** A README's example and what it says that it prints. */
export interface Example {
  readonly code: string
  readonly output: Block
}

/**
 * The one ts block of a package's README and the text block right after it.
 * @throws Error saying what is missing, when there is not exactly one example.
 */
export function findExample(markdown: string): Example {
  const blocks = parseBlocks(markdown)
  const found = blocks.flatMap((block, i) => (block.language === 'ts' ? [i] : []))
  if (found.length !== 1) throw new Error(`expected one \`\`\`ts block, found ${found.length}`)
  const output = blocks[found[0]! + 1]
  if (output?.language !== 'text')
    throw new Error('expected a ```text block with its output after the ```ts block')
  return { code: blocks[found[0]!]!.code, output }
}

/** Commands of the documentation, and the text block right after them, if there is one, which is what they print. */
export interface Session {
  readonly commands: readonly string[]
  readonly output: Block | undefined
}

/** The sh blocks that hold nothing but `npx polygraft` lines and comments, in order. Other blocks are for reading. */
export function findSessions(markdown: string): readonly Session[] {
  const blocks = parseBlocks(markdown)
  return blocks.flatMap(({ language, code }, i) => {
    const commands = joinContinued(code).filter((line) => line !== '' && !line.startsWith('#'))
    if (language !== 'sh' || !commands.every((line) => line.startsWith('npx polygraft '))) return []
    const next = blocks[i + 1]
    return [{ commands, output: next?.language === 'text' ? next : undefined }]
  })
}

const joinContinued = (code: string) =>
  code
    .replaceAll('\\\n', ' ')
    .split('\n')
    .map((line) => line.trim())

/** `text` without spaces at line ends and without empty lines at its end. */
export const trimOutput = (text: string) => text.replace(/[^\S\n]+$/gm, '').trimEnd()

/** What a block holds, and what it should hold. */
export interface Output {
  readonly block: Block
  readonly printed: string
}

/** `markdown` with what was printed in the place of what the blocks hold. */
export function putOutputs(markdown: string, outputs: readonly Output[]): string {
  const fromLast = [...outputs].sort((a, b) => b.block.begin - a.block.begin)
  return fromLast.reduce(
    (text, { block, printed }) => `${text.slice(0, block.begin)}${printed}\n${text.slice(block.end)}`,
    markdown,
  )
}
