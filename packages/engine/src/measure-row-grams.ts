import { numel, type Problem, type Source, type SourceId, type Tensor } from '@polygraft/tensor'
import { bytesOf, type MeasureOptions, measuring } from './measure-run.js'
import type { MeasureTask } from './measure-tasks.js'

/** Tensors of one shape. */
export interface GramTarget {
  readonly tensors: readonly Tensor[]
  /** One Gram matrix for each row or each column of `width` columns, instead of one for the whole. */
  readonly by?: 'rows' | 'columns'
  readonly width?: number
}

/** Elements of a task, about: whole rows. For columns it decides in which order rows are added, so it is a constant. */
const TASK_ELEMENTS = 2 ** 20

/**
 * The products of each row or column, group by group. A row's are those of the row measured alone. A column's are added up row by
 * row in segments of floor(2^20 / width) rows, at least one, and the segments in order.
 */
export async function measureRowGrams(
  wanted: ReadonlyMap<string, GramTarget>,
  sources: ReadonlyMap<SourceId, Source>,
  options: MeasureOptions,
): Promise<Map<string, Float64Array>> {
  const operands = new Map([...wanted].map(([name, { tensors }]) => [name, tensors]))
  const targets = [...wanted.values()]
  const tasks = targets.flatMap(({ tensors, by, width = 1 }, operand) =>
    rowTasks(tensors[0]!, width, { kind: 'rowGrams', operand, columns: by === 'columns' }),
  )
  const parts = await runRowTasks(tasks, operands, sources, options)
  return new Map(
    [...wanted].map(([name, { by }], i) => [name, by === 'rows' ? joined(parts[i]!) : added(parts[i]!)]),
  )
}

/** What keeps a target's rows from being measured. */
export function rowProblems(name: string, { tensors, by, width }: GramTarget): Problem[] {
  if (!by) return []
  const elements = tensors[0] ? numel(tensors[0].shape) : 0
  if (width !== undefined && Number.isSafeInteger(width) && width > 0 && elements % width === 0) return []
  return [
    {
      code: 'bad-count',
      message: 'The elements are not whole rows',
      tensor: name,
      expected: `a divisor of ${elements} as width`,
      received: `${width}`,
    },
  ]
}

/** Tasks of whole rows that together cover a tensor. */
export function rowTasks<Kind extends 'rowGrams' | 'rowDivergences'>(
  tensor: Tensor,
  width: number,
  task: Omit<MeasureTask<Kind>, 'begin' | 'count' | 'width'>,
): MeasureTask<Kind>[] {
  const total = numel(tensor.shape)
  const step = Math.max(1, Math.floor(TASK_ELEMENTS / width)) * width
  return Array.from({ length: Math.ceil(total / step) }, (_, i) => ({
    ...task,
    begin: i * step,
    count: Math.min(step, total - i * step),
    width,
  })) as MeasureTask<Kind>[]
}

/** What comes out, by operand, in the order of its tasks. Every task reads its elements of all tensors of the operand. */
export async function runRowTasks(
  tasks: readonly MeasureTask<'rowGrams' | 'rowDivergences'>[],
  operands: ReadonlyMap<string, readonly Tensor[]>,
  sources: ReadonlyMap<SourceId, Source>,
  options: MeasureOptions,
): Promise<readonly (readonly Float64Array[])[]> {
  const parts: Float64Array[] = []
  const bytesTotal = [...operands.values()].reduce((sum, tensors) => sum + bytesOf(tensors), 0)
  await measuring(operands, sources, bytesTotal, options, ({ run }) =>
    run(tasks, (_, index, result) => {
      parts[index] = result
    }),
  )
  return [...operands.keys()].map((_, operand) => parts.filter((_, i) => tasks[i]!.operand === operand))
}

/** One part after the other. */
export function joined(parts: readonly Float64Array[]): Float64Array {
  const all = new Float64Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}

function added(parts: readonly Float64Array[]): Float64Array {
  const sum = new Float64Array(parts[0]?.length ?? 0)
  for (const part of parts) for (let i = 0; i < sum.length; i++) sum[i]! += part[i]!
  return sum
}
