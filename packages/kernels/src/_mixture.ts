import { PANEL_DTYPES } from './_decoder-operations.js'
import { operation, shareOf } from './_operation.js'

/*
 * A mixture's operations. The rows that its experts compute are grouped: `pairs` rows, one for every row and chosen expert, those of expert 0
 * first, in the order of the rows.
 */

/**
 * Softmax of logits [rows, experts] in place (F64 within), the topK largest of each row, of equal ones the lower index first: their
 * indices as words in `chosen` and their probabilities in `weights`, both [rows, topK]; divided by their sum where `normalize` is not 0.
 */
export const gate = operation(
  ['logits', 'chosen', 'weights', 'rows', 'experts', 'topK', 'normalize'],
  (machine, { logits, chosen, weights, rows, experts, topK, normalize }, part, parts) => {
    const floats = machine.floats()
    const words = machine.words()
    const [begin, end] = shareOf(rows, part, parts)
    for (let row = begin; row < end; row++) {
      const values = floats.subarray(logits / 4 + row * experts, logits / 4 + (row + 1) * experts)
      const best = largest(values, topK)
      const exponentials = Array.from(values, (value) => Math.exp(value - values[best[0]!]!))
      const sum = exponentials.reduce((total, value) => total + value, 0)
      const kept = best.reduce((total, expert) => total + exponentials[expert]!, 0)
      for (let expert = 0; expert < experts; expert++) values[expert] = exponentials[expert]! / sum
      for (const [slot, expert] of best.entries()) {
        words[chosen / 4 + row * topK + slot] = expert
        floats[weights / 4 + row * topK + slot] = exponentials[expert]! / (normalize ? kept : sum)
      }
    }
  },
)

/** Indices of the `count` largest, largest first; NaN is never chosen before a number. */
function largest(values: Float32Array, count: number): number[] {
  const chosen: number[] = []
  for (let slot = 0; slot < count; slot++) {
    let best = -1
    for (let i = 0; i < values.length; i++)
      if (!chosen.includes(i) && (best < 0 || values[i]! > values[best]!)) best = i
    chosen.push(best)
  }
  return chosen
}

/**
 * Groups [rows, topK] choices by expert: `offsets` [experts + 1] words, where each expert's pairs begin; `sources` [pairs], the row of each
 * pair; `places` [rows, topK], the pair of each choice.
 */
export const group = operation(
  ['chosen', 'offsets', 'sources', 'places', 'rows', 'experts', 'topK'],
  (machine, { chosen, offsets, sources, places, rows, experts, topK }, part) => {
    if (part > 0) return
    const words = machine.words()
    const choices = words.subarray(chosen / 4, chosen / 4 + rows * topK)
    const starts = words.subarray(offsets / 4, offsets / 4 + experts + 1).fill(0)
    for (const expert of choices) starts[expert + 1]!++
    for (let expert = 0; expert < experts; expert++) starts[expert + 1]! += starts[expert]!
    const next = starts.slice(0, experts)
    for (const [choice, expert] of choices.entries()) {
      const pair = next[expert]!++
      words[sources / 4 + pair] = Math.floor(choice / topK)
      words[places / 4 + choice] = pair
    }
  },
)

/**
 * For every expert with pairs: out = x b^T over its pairs; x [pairs, k], b [n, k] packed. `table` holds for each expert two F64: the
 * address of b, and how it is stored.
 */
export const linearOfExperts = operation(
  ['x', 'table', 'offsets', 'experts', 'out', 'n', 'k'],
  (machine, { x, table, offsets, experts, out, n, k }, part, parts) => {
    const words = machine.words()
    const entries = new Float64Array(machine.bytes().buffer, table, 2 * experts)
    for (let expert = 0; expert < experts; expert++) {
      const [begin, end] = [words[offsets / 4 + expert]!, words[offsets / 4 + expert + 1]!]
      if (begin === end) continue
      const [b, dtype] = [entries[2 * expert]!, PANEL_DTYPES[entries[2 * expert + 1]!]!]
      const product = { m: end - begin, n, k, a: x + begin * k * 4, b, dtype, c: out + begin * n * 4 }
      machine.matmul.multiplyPacked(product, part, parts)
    }
  },
)

/** out [rows, columns] += factor * the sum over a row's choices of weight * y[pair], in the order of the choices. */
export const combine = operation(
  ['y', 'places', 'weights', 'out', 'rows', 'columns', 'topK', 'factor'],
  (machine, { y, places, weights, out, rows, columns, topK, factor }, part, parts) => {
    const floats = machine.floats()
    const words = machine.words()
    const [begin, end] = shareOf(columns, part, parts)
    for (let row = 0; row < rows; row++)
      for (let slot = 0; slot < topK; slot++) {
        const weight = floats[weights / 4 + row * topK + slot]! * factor
        const from = y / 4 + words[places / 4 + row * topK + slot]! * columns
        const to = out / 4 + row * columns
        for (let i = begin; i < end; i++) floats[to + i]! += weight * floats[from + i]!
      }
  },
)
