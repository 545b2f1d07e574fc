import { type Problem, type Tensor, throwIfAny } from '@polygraft/tensor'

/** A tensor, and how many of its elements are kept: what `measureThresholds` of `@polygraft/engine` takes. */
export interface TrimTarget {
  readonly tensor: Tensor
  readonly keep: number
}

/** What it gives: the elements above `threshold` in magnitude are kept, and those at it before element `tieEnd`. */
export interface TrimThreshold {
  readonly threshold: number
  readonly tieEnd: number
}

/** Tensors of one shape whose dot products are wanted: what `measureGrams` of `@polygraft/engine` takes. */
export interface GramTarget {
  readonly tensors: readonly Tensor[]
  /** One Gram matrix for each row or each column of `width` columns, instead of one for the whole. */
  readonly by?: 'rows' | 'columns'
  readonly width?: number
}

/** What it gives, in F64: of each row or column, or of the whole, the products (i, j), i <= j, row by row. */
export interface Gram {
  readonly products: ArrayLike<number>
}

/** Two matrices whose rows are compared: what `measureDivergences` of `@polygraft/engine` takes. */
export interface DivergenceTarget {
  readonly a: Tensor
  readonly b: Tensor
  /** Elements of a row. */
  readonly width: number
}

/** What `measureStatistics` of `@polygraft/engine` gives, as far as merges use it. */
export interface VectorStatistics {
  /** L1 norm. */
  readonly sumAbs: number
  /** Square of the L2 norm. */
  readonly sumSquares: number
  readonly count: number
  readonly zeros: number
}

/** What a merge has to know of values, by names that only matter to it. Plain data; `measureTargets` of `@polygraft/engine` takes it. */
export interface MergeTargets {
  readonly thresholds: ReadonlyMap<string, TrimTarget>
  readonly statistics: ReadonlyMap<string, Tensor>
  readonly grams: ReadonlyMap<string, GramTarget>
  readonly divergences: ReadonlyMap<string, DivergenceTarget>
}

/** What was measured, under the same names. */
export interface Measures {
  readonly thresholds: ReadonlyMap<string, TrimThreshold>
  readonly statistics: ReadonlyMap<string, VectorStatistics>
  readonly grams: ReadonlyMap<string, Gram>
  /** Of each row, in F64. */
  readonly divergences: ReadonlyMap<string, ArrayLike<number>>
}

/** Nothing measured: what merges start from. */
export const NO_MEASURES: Measures = {
  thresholds: new Map(),
  statistics: new Map(),
  grams: new Map(),
  divergences: new Map(),
}

/** Nothing to measure. */
export const NO_TARGETS: MergeTargets = {
  thresholds: new Map(),
  statistics: new Map(),
  grams: new Map(),
  divergences: new Map(),
}

type Kind = keyof MergeTargets
const KINDS = ['thresholds', 'statistics', 'grams', 'divergences'] as const

/** How many targets there are. */
export function countTargets(targets: MergeTargets): number {
  return KINDS.reduce((sum, kind) => sum + targets[kind].size, 0)
}

/** Both together; of one name the later. */
function addMeasures(measured: Measures, more: Measures): Measures {
  return {
    thresholds: new Map([...measured.thresholds, ...more.thresholds]),
    statistics: new Map([...measured.statistics, ...more.statistics]),
    grams: new Map([...measured.grams, ...more.grams]),
    divergences: new Map([...measured.divergences, ...more.divergences]),
  }
}

/**
 * All that a merge has to know: measures what `targetsOf` asks for, again while that leaves something open (what is kept by
 * variance must be known before the energy of what is kept). `measure` is `measureTargets` of `@polygraft/engine` with its sources.
 */
export async function measureMerge(
  targetsOf: (measured: Measures) => MergeTargets,
  measure: (targets: MergeTargets) => Promise<Measures>,
): Promise<Measures> {
  let measured = NO_MEASURES
  for (;;) {
    const targets = targetsOf(measured)
    if (countTargets(targets) === 0) return measured
    const more = await measure(targets)
    throwIfAny(missingMeasures(targets, more))
    measured = addMeasures(measured, more)
  }
}

/** Answers from what was measured, and notes what was not. */
export interface Ask {
  threshold(name: string, target: TrimTarget): TrimThreshold | undefined
  statistics(name: string, tensor: Tensor): VectorStatistics | undefined
  gram(name: string, target: GramTarget): Gram | undefined
  divergences(name: string, target: DivergenceTarget): ArrayLike<number> | undefined
  /** What was asked for in vain. */
  readonly open: MergeTargets
  /** What is wrong with what was measured. */
  readonly problems: Problem[]
}

export function createAsk(measured: Measures): Ask {
  const open = {
    thresholds: new Map<string, TrimTarget>(),
    statistics: new Map<string, Tensor>(),
    grams: new Map<string, GramTarget>(),
    divergences: new Map<string, DivergenceTarget>(),
  }
  function answer<Target, Measure>(
    known: ReadonlyMap<string, Measure>,
    wanted: Map<string, Target>,
    name: string,
    target: Target,
  ): Measure | undefined {
    const found = known.get(name)
    if (found === undefined) wanted.set(name, target)
    return found
  }
  return {
    threshold: (name, target) => answer(measured.thresholds, open.thresholds, name, target),
    statistics: (name, target) => answer(measured.statistics, open.statistics, name, target),
    gram: (name, target) => answer(measured.grams, open.grams, name, target),
    divergences: (name, target) => answer(measured.divergences, open.divergences, name, target),
    open,
    problems: [],
  }
}

/** A problem for every target that has no measure. */
export function missingMeasures(targets: MergeTargets, measured: Measures = NO_MEASURES): Problem[] {
  const missing = (kind: Kind) => [...targets[kind].keys()].filter((name) => !measured[kind].has(name))
  return KINDS.flatMap((kind) =>
    missing(kind).map((name) => ({
      code: 'missing-measure',
      message: `The ${kind} of a tensor were not measured`,
      tensor: name,
      next: "Measure the targets of the same base and options until none is left, as measureMerge does, and give the result as 'measured'.",
    })),
  )
}

/** The dot products of n tensors as functions of a group's number: 0 for the whole, else a row or column. */
export function dotsOf(
  { products }: Gram,
  n: number,
): { readonly groups: number; dot(i: number, j: number, group: number): number } {
  const pairs = (n * (n + 1)) / 2
  return {
    groups: products.length / pairs,
    dot(i, j, group) {
      const [low, high] = i < j ? [i, j] : [j, i]
      return products[group * pairs + low * n - (low * (low - 1)) / 2 + high - low]!
    },
  }
}
