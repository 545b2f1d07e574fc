import { addCounts } from '@polygraft/kernels'
import type { TensorCounts } from './evaluate.js'

/** Adds the counts of tensor `name` to those in `sums`. */
export function addTo(sums: Record<string, TensorCounts>, name: string, added: TensorCounts): void {
  const sum = Object.hasOwn(sums, name) ? sums[name]! : { changed: 0, swallowed: 0 }
  addCounts(sum, added)
  sums[name] = sum
}
