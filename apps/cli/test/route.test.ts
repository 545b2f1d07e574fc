import { join } from 'node:path'
import { expect, it } from 'vitest'
import { BASE, CPT, run, succeed, TRIO } from './support.js'

const TEXTS = ['a', 'c'].flatMap((name) => ['--text', `${name}=${join(TRIO, `../data/raw-${name}.txt`)}`])

it('route tells where the tokens of each language go, and that nothing moved where nothing changed', async () => {
  const { routers, languages } = await succeed(['route', CPT, ...TEXTS, '--before', CPT])
  expect(routers.map(({ layer }: { layer: number }) => layer)).toEqual([0, 1, 2, 3])
  expect(routers.every(({ condition }: { condition: number }) => condition >= 1)).toBe(true)
  expect(Object.keys(languages)).toEqual(['a', 'c'])
  const mean = (language: string, pick: (row: { expert0: number; drift: number }) => number) =>
    languages[language].reduce((sum: number, row: never) => sum + pick(row), 0) / 4
  // The review stage has taught the routers that a is expert 0's language.
  expect(mean('a', ({ expert0 }) => expert0)).toBeGreaterThan(mean('c', ({ expert0 }) => expert0))
  expect(mean('a', ({ drift }) => drift)).toBe(0)
})

it('route refuses a dense model', async () => {
  const { code, stdout } = await run(['route', BASE, ...TEXTS, '--json'])
  expect(code).toBe(1)
  expect(JSON.parse(stdout).error.code).toBe('no-mixture')
})
