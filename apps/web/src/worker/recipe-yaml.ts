import type { Recipe } from './api.js'

/**
 * A recipe in our own form, for `polygraft merge`. Strings are written as JSON, which YAML reads.
 * @param locate Where a checkpoint lies, by its key.
 */
export function recipeYaml(recipe: Recipe, locate: (key: string) => string): string {
  const { base, post, cpt, languages, lambda, expertLambda, layerLambda, seed, target } = recipe
  const path = (key: string) => JSON.stringify(locate(key))
  const upcycle = [
    `  - id: moe`,
    `    op: upcycle`,
    `    model: ${path(base)}`,
    languages.length > 0 ? `    languages: ${JSON.stringify(languages)}` : `    experts: 1`,
    ...(target === 'auto' ? [] : [`    target: ${target}`]),
    ...(seed === 0 ? [] : [`    seed: ${seed}`]),
  ]
  const graft = [
    `  - id: out`,
    `    op: graft`,
    `    model: ${cpt === undefined ? 'moe' : path(cpt)}`,
    `    base: ${path(base)}`,
    `    post: ${post === undefined ? '' : path(post)}`,
    ...(lambda === 1 ? [] : [`    lambda: ${lambda}`]),
    ...factors('expertLambda', expertLambda),
    ...factors('layerLambda', layerLambda),
  ]
  const steps = [...(cpt === undefined ? upcycle : []), ...(post === undefined ? [] : graft)]
  return `${['steps:', ...steps].join('\n')}\n`
}

function factors(name: string, by: Readonly<Record<number, number>>): string[] {
  const entries = Object.entries(by).map(([index, factor]) => `"${index}": ${factor}`)
  return entries.length === 0 ? [] : [`    ${name}: { ${entries.join(', ')} }`]
}
