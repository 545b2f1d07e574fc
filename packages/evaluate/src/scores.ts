/** Share of items that were right. */
export interface Accuracy {
  /** From 0 to 1. */
  readonly accuracy: number
  /** Standard error of the mean, with the variance of n - 1; 0 for a single item. */
  readonly stderr: number
  /** Items. */
  readonly n: number
}

/** Mean and standard error of scores from 0 to 1; of none, accuracy and error are NaN. */
export function accuracyOf(scores: readonly number[]): Accuracy {
  const n = scores.length
  const accuracy = scores.reduce((sum, score) => sum + score, 0) / n
  const squares = scores.reduce((sum, score) => sum + (score - accuracy) ** 2, 0)
  return { accuracy, stderr: n > 1 ? Math.sqrt(squares / (n - 1) / n) : n === 1 ? 0 : Number.NaN, n }
}

/**
 * What is left of a reference model's ability: ratio of the two accuracies, with the standard error by first-order
 * propagation, the two taken as independent (an upper bound for the same items). NaN when the reference has 0.
 */
export function retentionOf(
  model: Accuracy,
  reference: Accuracy,
): { readonly retention: number; readonly stderr: number } {
  const retention = reference.accuracy === 0 ? Number.NaN : model.accuracy / reference.accuracy
  const relative = Math.hypot(
    model.stderr / reference.accuracy,
    (retention * reference.stderr) / reference.accuracy,
  )
  return { retention, stderr: relative }
}

/** Groups `items` by a name, in the order in which the names first occur. */
export function groupBy<T>(items: readonly T[], nameOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>()
  for (const item of items) {
    const name = nameOf(item)
    const group = groups.get(name)
    if (group) group.push(item)
    else groups.set(name, [item])
  }
  return groups
}
