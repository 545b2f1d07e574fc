import type { DiffLine } from '@polygraft/delta'
import { groupBy } from './group-by.js'

/** What a cell can show. */
export type Measure = 'relativeNorm' | 'cosine' | 'changedShare'

/** A mean over the tensors of a layer and group, weighted by their elements. */
interface Cell {
  readonly layer: number | undefined
  readonly group: string
  readonly value: number
}

/** Layer x group, with the tensors outside of layers last. Where a group has several tensors, their mean by elements. */
export function cellsOf(lines: readonly DiffLine[], measure: Measure): readonly Cell[] {
  const keyOf = ({ layer, group }: DiffLine) => `${layer} ${group}`
  return [...groupBy(lines, keyOf).values()].map((inside) => {
    const all = inside.reduce((sum, { count }) => sum + count, 0)
    const value = inside.reduce((sum, line) => sum + line[measure] * line.count, 0) / all
    return { layer: inside[0]!.layer, group: inside[0]!.group ?? '', value }
  })
}
