import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { findCommands, findExample, parseBlocks, trimOutput } from './blocks.js'
import {
  createScratchRoot,
  packageDirs,
  ROOT,
  readReadme,
  runCommand,
  runExample,
  typeErrors,
} from './run.js'

describe('examples of the packages', () => {
  it.each(packageDirs())('%s/README.md prints what it says', (dir) => {
    const { code, output } = findExample(readReadme(dir))
    expect(runExample(dir, code)).toBe(trimOutput(output.code))
  })
})

it('the examples have no type errors', { timeout: 120_000 }, () => {
  const examples = new Map(packageDirs().map((dir) => [dir, findExample(readReadme(dir)).code]))
  expect(typeErrors(examples)).toBe('')
})

describe('commands of the documentation', () => {
  const docs = readdirSync(join(ROOT, 'docs')).map((name) => `docs/${name}`)
  const files = ['README.md', 'apps/cli/README.md', ...docs].filter((file) => existsSync(join(ROOT, file)))
  it.each(files)(
    '%s: every `npx polygraft` line of it works, one after the other',
    { timeout: 300_000 },
    (file) => {
      const commands = findCommands(readFileSync(join(ROOT, file), 'utf8'))
      const cwd = createScratchRoot()
      try {
        for (const command of commands) runCommand(command, cwd)
      } finally {
        rmSync(cwd, { recursive: true })
      }
    },
  )
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

  it('findCommands takes whole blocks of polygraft lines only', () => {
    const markdown =
      '```sh\n# first\nnpx polygraft inspect \\\n  a\n```\n```sh\nnpm ci\nnpx polygraft b\n```\n'
    expect(findCommands(markdown)).toEqual(['npx polygraft inspect    a'])
  })
})
