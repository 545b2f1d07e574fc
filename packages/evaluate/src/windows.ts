/** A stretch of a document that a model sees at once: tokens [begin, end), of which those from `score` on are scored. */
export interface Window {
  readonly begin: number
  readonly score: number
  readonly end: number
}

/**
 * Windows over `length` tokens so that each token but the first is scored exactly once: with all before it where they fit into
 * `context`, else with at least `context - stride` of them (a sliding window; the first one is scored whole).
 * @param context tokens that the model sees at most, at least 2.
 * @param stride from 1 to context - 1; smaller is slower and nearer to full context.
 */
export function slidingWindows(length: number, context: number, stride: number): Window[] {
  if (length < 2) return []
  const windows: Window[] = [{ begin: 0, score: 1, end: Math.min(length, context) }]
  for (let score = context; score < length; score += stride) {
    const end = Math.min(length, score + stride)
    windows.push({ begin: end - context, score, end })
  }
  return windows
}
