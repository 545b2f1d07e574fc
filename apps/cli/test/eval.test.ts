import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { BASE, CPT, createTemp, INSTRUCT, run, succeed, TRIO } from './support.js'

const DATA = join(TRIO, '../data')

it('eval gives perplexity by language, accuracy by task, what is kept of a reference, and a page', async () => {
  const temp = await createTemp()
  const lines = await readFile(join(DATA, 'instruct-a.jsonl'), 'utf8')
  const items = lines.replaceAll(' <end>"', '"').split('\n').slice(0, 20)
  await writeFile(temp.at('tasks.jsonl'), items.join('\n'))
  for (const language of ['a', 'c']) {
    const text = await readFile(join(DATA, `raw-${language}.txt`), 'utf8')
    await writeFile(temp.at(`${language}.txt`), text.split('\n').slice(0, 8).join('\n'))
  }
  const texts = ['--text', `a=${temp.at('a.txt')}`, '--text', `c=${temp.at('c.txt')}`]
  const more = [
    '--tasks',
    temp.at('tasks.jsonl'),
    '--reference',
    INSTRUCT,
    '--report',
    temp.at('report.html'),
  ]
  const result = await succeed(['eval', INSTRUCT, ...texts, ...more])
  expect(Object.keys(result.languages)).toEqual(['a', 'c'])
  expect(result.languages.a.perplexity).toBeLessThan(result.languages.c.perplexity)
  expect(result.languages.a.tokens).toBeGreaterThan(100)
  const counts = Object.values<{ n: number }>(result.tasks).map(({ n }) => n)
  expect(counts.reduce((a, b) => a + b, 0)).toBe(20)
  expect(result.reference.languages).toEqual(result.languages)
  expect(await readFile(temp.at('report.html'), 'utf8')).toContain('<svg')
})

it('eval --report shows scores, the experts that each language takes, and the delta layer by layer', async () => {
  const temp = await createTemp()
  const text = await readFile(join(DATA, 'raw-c.txt'), 'utf8')
  await writeFile(temp.at('c.txt'), text.split('\n').slice(0, 4).join('\n'))
  const page = ['--base', BASE, '--reference', INSTRUCT, '--report', temp.at('report.html')]
  await succeed(['eval', CPT, '--text', `c=${temp.at('c.txt')}`, ...page])
  const html = await readFile(temp.at('report.html'), 'utf8')
  expect([...html.matchAll(/<figcaption>([^<]*)/g)].map(([, title]) => title)).toEqual([
    'Perplexity by language (lower is better)',
    'Share of the choices that each expert takes, by language and layer',
    'Relative norm of the delta by layer',
  ])
  expect(html).toContain('0 original')
  expect(html).not.toMatch(/<script|https?:\/\/(?!www\.w3\.org)/)
  const alone = await run(['eval', CPT, '--text', `c=${temp.at('c.txt')}`, '--base', BASE])
  expect(alone.code).toBe(2)
})

it('eval names every broken line of a task file', async () => {
  const temp = await createTemp()
  await writeFile(temp.at('tasks.jsonl'), '{"question": "a", "answer": "b"}\n{\n{"question": 3}')
  const { code, stdout } = await run(['eval', INSTRUCT, '--tasks', temp.at('tasks.jsonl'), '--json'])
  expect(code).toBe(1)
  const { problems } = JSON.parse(stdout).error
  expect(problems.map(({ file }: { file: string }) => file.slice(-2))).toEqual([':2', ':3'])
})
