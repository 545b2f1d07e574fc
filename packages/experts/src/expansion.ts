import type { SharedExpert } from '@polygraft/architectures'
import type { JsonObject, JsonValue } from '@polygraft/tensor'
import { ModelError } from '@polygraft/tensor'

/**
 * How the matrices of a larger model come from those of a dense one, whatever their values: the same is done to a difference of
 * two dense models. `readExpansion` finds it in a recipe. A copy is a whole feed-forward block: expert e is part e mod
 * `granularity` of copy floor(e / granularity).
 */
export interface Expansion {
  /** Parts g that each copy is cut into (arXiv:2410.07524). */
  readonly granularity: number
  /** Whether a shared expert derives from the dense block. */
  readonly sharedExpert: SharedExpert
  /** What the routed experts were scaled by to make room for it: 1/2, its gate giving it the other half. */
  readonly routedFactor: number
  readonly noise?: { readonly std: number; readonly seed: number }
  readonly drop?: Redraw
  /** Copies that come from other models than the base. */
  readonly foreign: readonly number[]
  /** Whether everything but the experts is the mean of all models (arXiv:2403.07816). */
  readonly mean: boolean
  /** For each layer the dense one that it derives from, null for an inserted one. Left out: each from its own. */
  readonly layers?: readonly (number | null)[]
}

/** Drop-Upcycling (arXiv:2502.19261): a share of each copy's neurons is drawn anew, but for copy 0. */
export interface Redraw {
  readonly rate: number
  readonly seed: number
  /** By `redrawnKey`, mean and standard deviation of the entries that are replaced. Not needed for a difference. */
  readonly moments: ReadonlyMap<string, readonly [mean: number, std: number]>
}

/** Copies, whole and from one model: what a checkpoint without a recipe is taken to be. */
export const PLAIN_COPIES: Expansion = {
  granularity: 1,
  sharedExpert: 'placeholder',
  routedFactor: 1,
  foreign: [],
  mean: false,
}

/**
 * The expansion that a recipe records: of its last `upcycle` step, on the layers that its `expand` steps left.
 * @throws ModelError "bad-manifest" for fields that are not what polygraft writes.
 */
export function readExpansion(recipe: readonly JsonObject[]): Expansion {
  const step = recipe.findLast(({ op }) => op === 'upcycle')
  const layers = readLayers(recipe)
  return { ...(step ? readStep(step) : PLAIN_COPIES), ...(layers ? { layers } : {}) }
}

function readStep(step: JsonObject): Expansion {
  const granularity = step.granularity ?? 1
  if (!isIndex(granularity) || granularity < 1) throw badField('granularity', 'a whole number', granularity)
  const { sharedExpert = 'placeholder' } = step
  if (sharedExpert !== 'placeholder' && sharedExpert !== 'derived')
    throw badField('sharedExpert', 'placeholder or derived', sharedExpert)
  const experts = (step.inputs as JsonObject | undefined)?.experts ?? {}
  return {
    granularity,
    sharedExpert,
    routedFactor: sharedExpert === 'derived' ? 0.5 : 1,
    foreign: Object.keys(experts as JsonObject).map(Number),
    mean: step.others === 'mean',
    ...readInit(step),
  }
}

function readInit({ expertInit, seed = 0 }: JsonObject): Pick<Expansion, 'noise' | 'drop'> {
  const init = (expertInit ?? {}) as JsonObject
  if (init.kind !== 'noise' && init.kind !== 'drop') return {}
  if (!Number.isSafeInteger(seed)) throw badField('seed', 'a whole number', seed)
  const size = init.kind === 'noise' ? init.std : init.rate
  if (typeof size !== 'number' || !(size > 0)) throw badField('expertInit', 'a positive number', expertInit)
  if (init.kind === 'noise') return { noise: { std: size, seed: seed as number } }
  const moments = Object.entries((init.moments ?? {}) as JsonObject)
  const isPair = (value: JsonValue) =>
    Array.isArray(value) && value.length === 2 && value.every(Number.isFinite)
  if (size > 1 || !moments.every(([, value]) => isPair(value)))
    throw badField('expertInit', 'a rate of at most 1, and pairs of numbers', expertInit)
  return {
    drop: { rate: size, seed: seed as number, moments: new Map(moments as [string, [number, number]][]) },
  }
}

/** Layers of the dense model from which those of the result derive; undefined where none was inserted. */
function readLayers(recipe: readonly JsonObject[]): Expansion['layers'] {
  let layers: (number | null)[] | undefined
  for (const { after, layers: count } of recipe.filter(({ op }) => op === 'expand')) {
    if (!Array.isArray(after) || !after.every(isIndex) || !isIndex(count) || count > MAX_LAYERS)
      throw badField('after', 'a list of layers, and how many there were', after)
    const before: readonly (number | null)[] = layers ?? Array.from({ length: count }, (_, layer) => layer)
    layers = insertedLayers(before.length, after as number[]).map((layer) =>
      layer === null ? null : before[layer]!,
    )
  }
  return layers
}

// No model has more; a hostile manifest must not make us list billions.
const MAX_LAYERS = 10_000

/** The layers 0 to count - 1 with a null after each layer of `after`, as often as it occurs there. */
export function insertedLayers(count: number, after: readonly number[]): (number | null)[] {
  return Array.from({ length: count }, (_, layer) => [
    layer,
    ...after.filter((each) => each === layer).map(() => null),
  ]).flat()
}

function isIndex(value: JsonValue | undefined): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0
}

function badField(field: string, expected: string, received: JsonValue | undefined): ModelError {
  return new ModelError({
    code: 'bad-manifest',
    message: `Field ${field} of the recipe is not what polygraft writes`,
    file: 'polygraft.json',
    expected,
    received: JSON.stringify(received ?? null).slice(0, 80),
    next: 'Use the polygraft.json that upcycling wrote.',
  })
}
