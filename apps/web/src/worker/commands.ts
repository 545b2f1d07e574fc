import type { Recipe } from './api.js'

/** A recipe as commands, one for each step. @param locate Where a checkpoint lies, by its key. */
export function commandsOf(recipe: Recipe, locate: (key: string) => string): readonly string[] {
  const { base, post, cpt, languages, lambda, expertLambda, layerLambda, seed, target } = recipe
  const path = (key: string) => quote(locate(key))
  const upcycle = ['polygraft', 'upcycle', path(base), '-o', post === undefined ? 'out' : 'moe']
  if (languages.length > 0) upcycle.push('--languages', quote(languages.join(',')))
  else upcycle.push('--experts', '1')
  if (target !== 'auto') upcycle.push('--target', target)
  if (seed !== 0) upcycle.push('--seed', `${seed}`)
  const steps = cpt === undefined ? [upcycle] : []
  if (post !== undefined) {
    const graft = ['polygraft', 'graft', cpt === undefined ? 'moe' : path(cpt), '-o', 'out']
    graft.push('--base', path(base), '--post', path(post))
    if (lambda !== 1) graft.push('--lambda', `${lambda}`)
    for (const [option, by] of [
      ['--expert-lambda', expertLambda],
      ['--layer-lambda', layerLambda],
    ] as const) {
      const factors = Object.entries(by).map(([index, factor]) => `${index}=${factor}`)
      if (factors.length > 0) graft.push(option, factors.join(','))
    }
    steps.push(graft)
  }
  return steps.map((step) => step.join(' '))
}

/** For a POSIX shell. */
function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
}
