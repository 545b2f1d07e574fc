import type { Manifest } from '@polygraft/engine'
import type { Problem } from '@polygraft/tensor'
import { signal } from '@preact/signals'
import type { Outlook, Recipe, Target } from '../worker/api.js'
import { models } from './models.js'

/** What the user chose; undefined where nothing was, which then follows what is open. */
export const chosen = signal<Partial<Recipe>>({})
export const outlook = signal<Outlook | undefined>(undefined)
export const running = signal<readonly [done: number, total: number] | undefined>(undefined)
export const outcome = signal<{ manifest: Manifest; target: Target } | undefined>(undefined)
export const runProblems = signal<readonly Problem[]>([])

/** The recipe as it stands; undefined while no base is open. */
export function recipeOf(): Recipe | undefined {
  const keys = [...models.value.keys()]
  const isMixture = (key: string) => models.value.get(key)?.numExperts !== undefined
  const dense = keys.filter((key) => !isMixture(key))
  const {
    languages = ['el'],
    lambda = 1,
    expertLambda = {},
    layerLambda = {},
    target = 'auto',
    seed = 0,
    ...sources
  } = chosen.value
  const open = (key: string | undefined) => (key !== undefined && models.value.has(key) ? key : undefined)
  const base = open(sources.base) ?? dense[0]
  if (base === undefined) return undefined
  const post = 'post' in sources ? open(sources.post) : dense.find((key) => key !== base)
  const cpt = 'cpt' in sources ? open(sources.cpt) : keys.find(isMixture)
  return {
    base,
    ...(post === undefined ? {} : { post }),
    ...(cpt === undefined || post === undefined ? {} : { cpt }),
    languages,
    lambda,
    expertLambda,
    layerLambda,
    target,
    seed,
  }
}
