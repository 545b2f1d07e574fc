import type { Problem } from '@polygraft/tensor'
import { signal } from '@preact/signals'
import type { Model, Opening } from '../worker/api.js'
import { problemsOf, worker } from './worker.js'

/** The checkpoints that are open, by key, in the order in which they were opened. */
export const models = signal<ReadonlyMap<string, Model>>(new Map())
/** Where they came from, for other workers that open them again. */
export const openings = new Map<string, Opening>()
/** What is being opened. */
export const opening = signal<readonly string[]>([])
/** What opening has met. */
export const openProblems = signal<readonly Problem[]>([])

/** The checkpoints of the site, and what they are to each other. */
const TRIO = ['base', 'instruct', 'cpt'] as const

/** Opens a checkpoint, or finds it open. Undefined when that fails; `openProblems` says why. */
export async function openModel(what: Opening): Promise<Model | undefined> {
  const key = keyOf(what)
  const known = models.value.get(key)
  if (known) return known
  opening.value = [...opening.value, key]
  try {
    const model = await worker().open(key, what)
    openings.set(key, what)
    models.value = new Map([...models.value, [key, model]])
    return model
  } catch (error) {
    openProblems.value = [...openProblems.value, ...problemsOf(error)]
    return undefined
  } finally {
    opening.value = opening.value.filter((each) => each !== key)
  }
}

export async function openTrio(): Promise<void> {
  openProblems.value = []
  for (const name of TRIO) await openModel({ kind: 'trio', name })
}

export async function closeModel(key: string): Promise<void> {
  models.value = new Map([...models.value].filter(([each]) => each !== key))
  openings.delete(key)
  await worker().close(key)
}

/** Opens what a link names, if a link can: the trio and what lies on a server. */
export async function openByKey(key: string): Promise<void> {
  if (key.startsWith('trio:')) await openModel({ kind: 'trio', name: key.slice('trio:'.length) })
  else if (/^(hf:|https?:)/.test(key)) await openModel({ kind: 'url', location: key })
}

let unnamed = 0

function keyOf(what: Opening): string {
  if (what.kind === 'trio') return `trio:${what.name}`
  if (what.kind === 'url') return what.location
  return `${what.kind}:${++unnamed}`
}
