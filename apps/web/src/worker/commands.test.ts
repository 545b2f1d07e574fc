import { describe, expect, it } from 'vitest'
import type { Recipe } from './api.js'
import { commandsOf } from './commands.js'

const recipe: Recipe = {
  base: 'b',
  languages: ['el', 'hu'],
  lambda: 1,
  expertLambda: {},
  layerLambda: {},
  target: 'auto',
  seed: 0,
}

describe('commandsOf', () => {
  const cases: readonly [string, Recipe, readonly string[]][] = [
    ['a base alone', recipe, ['polygraft upcycle ./b -o out --languages el,hu']],
    [
      'a graft',
      { ...recipe, post: 'p', cpt: 'c', lambda: 0.5, expertLambda: { 2: 0.8 }, layerLambda: { 3: 0.5 } },
      [
        'polygraft graft ./c -o out --base ./b --post ./p --lambda 0.5 --expert-lambda 2=0.8 --layer-lambda 3=0.5',
      ],
    ],
    [
      'both steps',
      { ...recipe, post: 'p', seed: 7 },
      [
        'polygraft upcycle ./b -o moe --languages el,hu --seed 7',
        'polygraft graft moe -o out --base ./b --post ./p',
      ],
    ],
  ]
  it.each(cases)('%s', (_, given, commands) => {
    expect(commandsOf(given, (key) => `./${key}`)).toEqual(commands)
  })

  it('quotes what a shell would take apart', () => {
    const [command] = commandsOf(recipe, () => "it's a model")
    expect(command).toContain(String.raw`'it'\''s a model'`)
  })
})
