import type { TensorView } from './api.js'

/** Cells of a heat map each way, at most. */
const MAX_HEAT = 96
const BINS = 60

/** Figures of the finite values; NaN and infinities are counted apart. */
export function summarize(values: Float32Array): Omit<TensorView, 'rows' | 'rowsRead' | 'heat'> {
  let [min, max, sum, squares, nonFinite] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0, 0, 0]
  for (const value of values) {
    if (!Number.isFinite(value)) {
      nonFinite++
      continue
    }
    if (value < min) min = value
    if (value > max) max = value
    sum += value
    squares += value * value
  }
  const finite = values.length - nonFinite
  if (finite === 0) [min, max] = [0, 0]
  const mean = finite ? sum / finite : 0
  const std = finite ? Math.sqrt(Math.max(0, squares / finite - mean * mean)) : 0
  const histogram = new Array<number>(BINS).fill(0)
  const scale = max > min ? BINS / (max - min) : 0
  for (const value of values)
    if (Number.isFinite(value)) histogram[Math.min(BINS - 1, Math.floor((value - min) * scale))]! += 1
  return { count: values.length, min, max, mean, std, nonFinite, histogram }
}

/** Root mean squares of cells, at most `MAX_HEAT` each way. */
export function heatOf(values: Float32Array, rows: number, width: number): TensorView['heat'] {
  const down = Math.min(MAX_HEAT, rows)
  const across = Math.min(MAX_HEAT, width)
  const sums = new Float64Array(down * across)
  const counts = new Float64Array(down * across)
  for (let row = 0; row < rows; row++) {
    const first = Math.floor((row * down) / rows) * across
    for (let column = 0; column < width; column++) {
      const value = values[row * width + column]!
      const cell = first + Math.floor((column * across) / width)
      if (!Number.isFinite(value)) continue
      sums[cell]! += value * value
      counts[cell]! += 1
    }
  }
  const means = Float32Array.from(sums, (sum, cell) => (counts[cell] ? Math.sqrt(sum / counts[cell]!) : 0))
  return { rows: down, columns: across, values: means }
}
