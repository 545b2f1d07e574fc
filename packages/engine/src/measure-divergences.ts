import { type Problem, type Source, type SourceId, type Tensor, throwIfAny } from '@polygraft/tensor'
import { operandProblems, pairProblems } from './measure.js'
import { joined, rowProblems, rowTasks, runRowTasks } from './measure-row-grams.js'
import type { MeasureOptions } from './measure-run.js'

/** Two matrices whose rows are compared. */
export interface DivergenceTarget {
  readonly a: Tensor
  readonly b: Tensor
  /** Elements of a row. */
  readonly width: number
}

/**
 * How far each row of `a` is from that of `b`, both taken for logits: the Kullback-Leibler divergence of their softmax, see
 * `rowDivergences` of `@polygraft/kernels`. In F64; threads and tiles do not change it.
 * @throws ModelError 'shape-mismatch', 'bad-count' (rows that are not whole) and 'not-a-float' with every such tensor; what reading throws.
 */
export async function measureDivergences(
  wanted: ReadonlyMap<string, DivergenceTarget>,
  sources: ReadonlyMap<SourceId, Source>,
  options: MeasureOptions = {},
): Promise<Map<string, Float64Array>> {
  const operands = new Map([...wanted].map(([name, { a, b }]) => [name, [a, b]] as const))
  throwIfAny([...[...wanted].flatMap(targetProblems), ...operandProblems(operands, sources)])
  if (wanted.size === 0) return new Map()
  const targets = [...wanted.values()]
  const tasks = targets.flatMap(({ a, width }, operand) =>
    rowTasks(a, width, { kind: 'rowDivergences', operand }),
  )
  const parts = await runRowTasks(tasks, operands, sources, options)
  return new Map([...wanted.keys()].map((name, i) => [name, joined(parts[i]!)]))
}

function targetProblems([name, { a, b, width }]: readonly [string, DivergenceTarget]): Problem[] {
  return [...pairProblems(name, a, b), ...rowProblems(name, { tensors: [a], by: 'rows', width })]
}
