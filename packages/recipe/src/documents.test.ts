import { readdir, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { parseRecipe } from '@polygraft/recipe'
import { expect, it } from 'vitest'

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const document = await readFile(at('../../../docs/recipes.md'), 'utf8')
const recipes = [...document.matchAll(/^```yaml\n([\s\S]*?)^```$/gm)].map(([, text]) => text!)

it('every recipe in the documentation is one, without warnings', () => {
  expect(recipes).toHaveLength(6)
  for (const text of recipes) expect(parseRecipe(text, 'recipes.md').warnings).toEqual([])
})

it('the examples are those of the documentation', async () => {
  for (const name of await readdir(at('../examples')))
    expect(recipes).toContain(await readFile(at(`../examples/${name}`), 'utf8'))
})
