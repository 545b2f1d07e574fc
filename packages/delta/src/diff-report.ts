/**
 * Sums over the elements of two tensors a (base) and b (post), in F64; as `measurePair` of `@polygraft/engine` gives.
 */
export interface PairMoments {
  /** Number of elements. */
  readonly count: number
  /** Sum of a^2. */
  readonly sumA2: number
  /** Sum of b^2. */
  readonly sumB2: number
  /** Sum of a * b. */
  readonly dot: number
  /** Sum of (b - a)^2. */
  readonly sumDelta2: number
  /** Number of elements with a != b. */
  readonly changed: number
  /** Maximum of |b - a|. */
  readonly maxAbsDelta: number
  /** Number of elements where a or b is infinite or NaN; they enter no sum. */
  readonly nonFinite: number
}

/** One measured tensor. */
export interface DiffRow {
  readonly name: string
  /** Its role's group: `attention`, `ffn`, ... */
  readonly group: string
  readonly layer?: number
  readonly moments: PairMoments
}

/** What a tensor, a group of them, or the whole model changed by. */
export interface DiffLine {
  /** The tensor's name, the group's, or `total`. */
  readonly name: string
  readonly group?: string
  readonly layer?: number
  readonly count: number
  /** ||post - base||, Frobenius. */
  readonly norm: number
  /** ||post - base|| / ||base||; Infinity where the base is all zero and the delta is not (null in JSON). */
  readonly relativeNorm: number
  /** <base, post> / (||base|| ||post||), in [-1, 1]; NaN where either is all zero (null in JSON). */
  readonly cosine: number
  /** Share of elements that differ, in [0, 1]. */
  readonly changedShare: number
  /** Maximum of |post - base|. */
  readonly maxAbs: number
  readonly nonFinite: number
}

export interface DiffReport {
  /** By relative norm, descending; ties by name. */
  readonly tensors: readonly DiffLine[]
  /** Totals by group over its tensors' elements; keys in order of relative norm, descending. */
  readonly groups: Readonly<Record<string, DiffLine>>
  readonly total: DiffLine
}

const NO_MOMENTS: PairMoments = {
  count: 0,
  sumA2: 0,
  sumB2: 0,
  dot: 0,
  sumDelta2: 0,
  changed: 0,
  maxAbsDelta: 0,
  nonFinite: 0,
}

/** Norms, cosines and shares out of moments. Totals come of added moments, not of averaged ratios. Pure. */
export function diffReport(rows: readonly DiffRow[]): DiffReport {
  const groups = new Map<string, PairMoments>()
  for (const { group, moments } of rows)
    groups.set(group, addMoments(groups.get(group) ?? NO_MOMENTS, moments))
  const groupLines = [...groups].map(([name, moments]) => lineOf(name, moments)).sort(byRelativeNorm)
  const total = rows.reduce((sum, { moments }) => addMoments(sum, moments), NO_MOMENTS)
  return {
    tensors: rows
      .map(({ moments, name, group, layer }) =>
        lineOf(name, moments, { group, ...(layer === undefined ? {} : { layer }) }),
      )
      .sort(byRelativeNorm),
    groups: Object.fromEntries(groupLines.map((line) => [line.name, line])),
    total: lineOf('total', total),
  }
}

function addMoments(a: PairMoments, b: PairMoments): PairMoments {
  return {
    count: a.count + b.count,
    sumA2: a.sumA2 + b.sumA2,
    sumB2: a.sumB2 + b.sumB2,
    dot: a.dot + b.dot,
    sumDelta2: a.sumDelta2 + b.sumDelta2,
    changed: a.changed + b.changed,
    maxAbsDelta: Math.max(a.maxAbsDelta, b.maxAbsDelta),
    nonFinite: a.nonFinite + b.nonFinite,
  }
}

function lineOf(name: string, m: PairMoments, place: { group?: string; layer?: number } = {}): DiffLine {
  const norm = Math.sqrt(m.sumDelta2)
  const norms = Math.sqrt(m.sumA2) * Math.sqrt(m.sumB2)
  return {
    name,
    ...place,
    count: m.count,
    norm,
    relativeNorm: norm === 0 ? 0 : norm / Math.sqrt(m.sumA2),
    // Rounding can carry the quotient past 1 by an ulp or two.
    cosine: Math.max(-1, Math.min(1, m.dot / norms)),
    changedShare: m.count === 0 ? 0 : m.changed / m.count,
    maxAbs: m.maxAbsDelta,
    nonFinite: m.nonFinite,
  }
}

function byRelativeNorm(a: DiffLine, b: DiffLine): number {
  const [left, right] = [
    a.relativeNorm ?? Number.POSITIVE_INFINITY,
    b.relativeNorm ?? Number.POSITIVE_INFINITY,
  ]
  if (left !== right) return left < right ? 1 : -1
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0
}
