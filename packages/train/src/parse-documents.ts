import { ModelError, type Problem, throwIfAny } from '@polygraft/tensor'

/** A text to learn from: of a prompt with an answer only the answer is learnt. */
export interface Document {
  readonly prompt?: string
  readonly text: string
  /** Where it begins in its file, from 1. */
  readonly line: number
}

/**
 * The documents of a data file. `.jsonl`: one object on each line, {"text"} or {"prompt", "answer"}; other fields are left alone. Else
 * plain text: documents parted by blank lines, or one on each line where no line is blank.
 * @throws ModelError "bad-data" with every line that is broken; "no-data" for a file without a document.
 */
export function parseDocuments(content: string, file: string): readonly Document[] {
  const problems: Problem[] = []
  const documents = file.endsWith('.jsonl') ? parseLines(content, file, problems) : parseText(content)
  throwIfAny(problems)
  if (documents.length === 0)
    throw new ModelError({
      code: 'no-data',
      message: 'The file holds no document',
      file,
      expected: 'text, or JSON objects with "text" or "prompt" and "answer" in a .jsonl file',
    })
  return documents
}

function parseText(content: string): Document[] {
  const lines = content.split(/\r?\n/)
  const isBlank = (line: string) => line.trim() === ''
  const end = lines.findLastIndex((line) => !isBlank(line)) + 1
  const first = lines.findIndex((line) => !isBlank(line))
  const hasBlank = lines.slice(Math.max(0, first), end).some(isBlank)
  const documents: { text: string; line: number }[] = []
  let isOpen = false
  lines.slice(0, end).forEach((line, i) => {
    if (isBlank(line)) isOpen = false
    else if (isOpen && hasBlank) documents.at(-1)!.text += `\n${line}`
    else {
      documents.push({ text: line, line: i + 1 })
      isOpen = true
    }
  })
  return documents
}

function parseLines(content: string, file: string, problems: Problem[]): Document[] {
  return content.split(/\r?\n/).flatMap((text, i) => {
    if (text.trim() === '') return []
    const found = documentOf(text, i + 1)
    if (found) return [found]
    problems.push({
      code: 'bad-data',
      message: 'A line holds no document',
      file,
      line: i + 1,
      expected: 'an object with a non-empty "text", or with "prompt" and a non-empty "answer"',
      received: text.length > 100 ? `${text.slice(0, 100)}...` : text,
      next: 'Mend or remove the line.',
    })
    return []
  })
}

function documentOf(json: string, line: number): Document | undefined {
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch {
    return undefined
  }
  if (typeof value !== 'object' || value === null) return undefined
  const { text, prompt, answer } = value as Record<string, unknown>
  if (typeof text === 'string' && text !== '') return { text, line }
  if (typeof prompt !== 'string' || typeof answer !== 'string' || answer === '') return undefined
  return { prompt, text: answer, line }
}
