import { describe, expect, it } from 'vitest'
import { findExample, findSessions, parseBlocks, putOutputs, trimOutput } from './blocks.js'
import { documents, packageReadmes, readDocument, runDocument, runPackageReadme, typeErrors } from './run.js'

it.each(packageReadmes())('the example in %s prints what it says', (file) => {
  for (const { block, printed } of runPackageReadme(file)) expect(printed).toBe(trimOutput(block.code))
})

it('the examples have no type errors', { timeout: 120_000 }, () => {
  const examples = new Map(packageReadmes().map((file) => [file, findExample(readDocument(file)).code]))
  expect(typeErrors(examples)).toBe('')
})

it.each(documents())('the commands in %s work, and print what it says', { timeout: 300_000 }, (file) => {
  for (const { block, printed } of runDocument(file)) expect(printed).toBe(trimOutput(block.code))
})

describe('parseBlocks', () => {
  it('gives the language, the code and its place', () => {
    const text = 'a\n```ts\nconst b = 1\n```\nc\n```text title\n1\n2\n```\n'
    const blocks = parseBlocks(text)
    expect(blocks.map(({ language, code }) => [language, code])).toEqual([
      ['ts', 'const b = 1\n'],
      ['text', '1\n2\n'],
    ])
    for (const { code, begin, end } of blocks) expect(text.slice(begin, end)).toBe(code)
  })

  it.each([
    ['no block', 'text', 'found 0'],
    ['two examples', '```ts\n```\n```text\n```\n```ts\n```\n', 'found 2'],
    ['no output', '```ts\n```\n', 'text block'],
  ])('findExample refuses %s', (_, markdown, message) => {
    expect(() => findExample(markdown)).toThrow(message)
  })

  it('findSessions takes whole blocks of polygraft lines only, with the output that follows', () => {
    const markdown = '```sh\n# first\nnpx polygraft inspect \\\n  a\n```\n```text\nb\n```\n'
    const other = '```sh\nnpm ci\nnpx polygraft b\n```\n'
    const sessions = findSessions(markdown + other)
    expect(sessions.map(({ commands, output }) => [commands, output?.code])).toEqual([
      [['npx polygraft inspect    a'], 'b\n'],
    ])
  })

  it('putOutputs puts each output into its block', () => {
    const text = '```text\n1\n```\n```text\n2\n```\n'
    const outputs = parseBlocks(text).map((block, i) => ({ block, printed: `new ${i}` }))
    expect(putOutputs(text, outputs)).toBe('```text\nnew 0\n```\n```text\nnew 1\n```\n')
  })
})
