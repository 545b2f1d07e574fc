import type { GraftCounts, NonFinite, OutputCounts } from './kernel.js'

type Writable<T> = { -readonly [Key in keyof T]: T[Key] }

/** `OutputCounts` being added up. */
export interface OutputSums extends Writable<GraftCounts> {
  nonFinite?: Writable<NonFinite>
}

/** Nothing counted yet. */
export function createCounts(): OutputSums {
  return { changed: 0, swallowed: 0 }
}

/** Adds an output's counts, of a tile or more, to `sums`. */
export function addCounts(sums: OutputSums, { changed, swallowed, nonFinite }: OutputCounts): void {
  sums.changed += changed
  sums.swallowed += swallowed
  addNonFinite(sums, nonFinite)
}

export function addNonFinite(sums: OutputSums, added: NonFinite | undefined): void {
  if (!added) return
  sums.nonFinite ??= { fromInputs: 0, made: 0 }
  sums.nonFinite.fromInputs += added.fromInputs
  sums.nonFinite.made += added.made
}
