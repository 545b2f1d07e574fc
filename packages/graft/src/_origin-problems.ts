import { readDeltaStep } from '@polygraft/delta'
import type { Checkpoint, JsonObject, JsonValue, Problem } from '@polygraft/tensor'
import { withOrigin } from './_expansion.js'
import type { GraftOptions } from './options.js'

/**
 * What the recipes of the checkpoints forbid: a stored delta of another base than cpt's, base and post the wrong way round,
 * the same delta twice. A model that was trained elsewhere without its `polygraft.json` has no recipe, and nothing is said.
 */
export function originProblems(cpt: Checkpoint, options: GraftOptions): Problem[] {
  const given = inputsOf(options)
  const grafts = cpt.provenance.recipe.filter(({ op }) => op === 'graft').map(stepInputs)
  const last = grafts.at(-1)
  // Taking a delta off again is a graft with base and post swapped.
  if (last && same(last.base, given.post) && same(last.post, given.base)) return []
  const base = recordedBase(cpt)
  const isOther = differ(base, given.base)
  return [
    ...(isOther && 'delta' in options ? [otherBase('delta-base-mismatch', base!, given)] : []),
    ...(isOther && !('delta' in options) && same(base, given.post) ? [swapped(base!, given)] : []),
    ...(grafts.some((graft) => same(graft.base, given.base) && same(graft.post, given.post))
      ? [again(given)]
      : []),
  ]
}

/**
 * What may be meant, and may surprise: base is not the checkpoint that cpt was upcycled from. It is another one rightly where
 * that had grown a vocabulary or changed its dtype before.
 */
export function graftWarnings(given: Checkpoint, options: GraftOptions): Problem[] {
  const cpt = withOrigin(given, options)
  const [base, inputs] = [recordedBase(cpt), inputsOf(options)]
  if ('delta' in options || !differ(base, inputs.base) || same(base, inputs.post)) return []
  return [otherBase('base-mismatch', base!, inputs)]
}

/** Checkpoints that hold a difference are no models. */
export function isDelta({ provenance }: Checkpoint): boolean {
  const last = provenance.recipe.at(-1)?.op
  return last === 'delta' || (last === 'scale' && provenance.recipe.some(({ op }) => op === 'delta'))
}

interface Inputs {
  readonly base?: JsonValue | undefined
  readonly post?: JsonValue | undefined
}

function inputsOf(options: GraftOptions): Inputs {
  if (!('delta' in options)) return { base: idOf(options.base), post: idOf(options.post) }
  const { base, post } = readDeltaStep(options.delta).inputs
  return { base, post }
}

function idOf({ sources }: Checkpoint): string | undefined {
  return sources.size === 1 ? [...sources.keys()][0] : undefined
}

function recordedBase(cpt: Checkpoint): JsonValue | undefined {
  return stepInputs(cpt.provenance.recipe.findLast(({ op }) => op === 'upcycle')).base
}

function stepInputs(step: JsonObject | undefined): Inputs {
  return (step?.inputs ?? {}) as Inputs
}

function same(a: JsonValue | undefined, b: JsonValue | undefined): boolean {
  return typeof a === 'string' && a === b
}

/** Ids of two kinds (a sample of the content, or of headers alone) say nothing about each other. */
function differ(a: JsonValue | undefined, b: JsonValue | undefined): boolean {
  if (typeof a !== 'string' || typeof b !== 'string') return false
  return a.split(':')[0] === b.split(':')[0] && a !== b
}

function otherBase(code: string, expected: JsonValue, given: Inputs): Problem {
  return {
    code,
    message:
      'The delta is of another base than the one that cpt was upcycled from, as its polygraft.json says',
    expected: String(expected),
    received: String(given.base),
    next: 'Take the delta from that base, unless this one is meant (--force).',
  }
}

function swapped(expected: JsonValue, given: Inputs): Problem {
  return {
    code: 'base-post-swapped',
    message: 'cpt was upcycled from what is given as post, as its polygraft.json says',
    expected: `base ${String(expected)}`,
    received: `base ${String(given.base)}, post ${String(given.post)}`,
    next: 'Swap base and post.',
  }
}

function again(given: Inputs): Problem {
  return {
    code: 'already-grafted',
    message: 'cpt has this delta already, as its polygraft.json says',
    received: `post ${String(given.post)}`,
    next: 'Graft onto the checkpoint before it; --force adds the delta once more.',
  }
}
